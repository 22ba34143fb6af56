//! Runs the generator.
<<<<<<< HEAD
fn main() -> anyhow::Result<()> {
    xtask::dashboards::generate(std::env::args().any(|a| a == "--check"))
=======
use xtask::history::{Report, prometheus};
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args.len() > 2 {
        let report = if args[1] == "2005" { Report::November2005 } else { Report::July2010 };
        let t = std::time::Instant::now();
        std::fs::create_dir_all(&args[2])?;
        prometheus::backfill(report, args[2].as_ref())?;
        println!("{:?}", t.elapsed());
        return Ok(());
    }
    xtask::dashboards::generate(args.iter().any(|a| a == "--check"))
>>>>>>> grafana
}
