//! Runs the generator.
fn main() -> anyhow::Result<()> {
    xtask::dashboards::generate(std::env::args().any(|a| a == "--check"))
}
