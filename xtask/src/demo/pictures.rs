//! What stays of the demo to look at: the landing page, and pictures of it and of the panels.

use anyhow::{Context as _, Result, bail, ensure};
use lab::{command, scrape};
use nix::unistd::{Gid, Uid, chown};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A picture of a page takes a second or two; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pictures of a dashboard take half a minute.
const DRAW_PATIENCE: Duration = Duration::from_mins(5);
/// Where the program that draws panels is, from the project's root.
const DRAW: &str = "grafana/draw";

/// Where the files go, and what draws.
pub(super) struct Pictures {
    directory: PathBuf,
    chromium: Option<PathBuf>,
}

impl Pictures {
    /// Files will go into `directory`, which is made.
    pub(super) fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(command::find);
        Ok(Self { directory, chromium })
    }

    /// Where the files go.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Saves the landing page at `pages` in both languages, and draws it if there is a Chromium. Says
    /// where the files are, or what is missing.
    pub(super) fn page(&self, pages: SocketAddr) -> Result<()> {
        for language in ["en", "ja"] {
            let answer = scrape::get_here(pages, &format!("/?lang={language}"))?;
            ensure!(answer.status == 200, "http://{pages}/?lang={language} answers {}", answer.status);
            let file = self.directory.join(format!("page.{language}.html"));
            fs::write(&file, answer.body).with_context(|| format!("write {}", file.display()))?;
            println!("the sensor's page      {}", file.display());
            if let Some(chromium) = &self.chromium {
                let picture = file.with_extension("png");
                draw_page(chromium, &file, &picture)?;
                println!("  a picture of it      {}", picture.display());
            }
        }
        if self.chromium.is_none() {
            println!("  no picture of it: Chromium is not installed (`sudo apt-get install chromium`)");
        }
        Ok(())
    }

    /// Why no panels can be drawn, as advice.
    pub(super) fn panels_need(&self) -> Option<String> {
        let missing = if self.chromium.is_none() {
            "Chromium: `sudo apt-get install chromium`"
        } else if command::find("node").is_none() {
            "Node.js: `sudo apt-get install nodejs npm`"
        } else if !command::root().join(DRAW).join("node_modules/playwright-core").exists() {
            return Some(format!("pictures of the panels need npm's parts: `npm --prefix {DRAW} install`"));
        } else {
            return None;
        };
        Some(format!("pictures of the panels need {missing}"))
    }

    /// Draws the monthly dashboard from the Prometheus at `address`.
    pub(super) fn panels(&self, address: SocketAddr) -> Result<()> {
        let out = self.directory.join("panels");
        let chromium = self.chromium.as_ref().context("find Chromium")?;
        let node = command::find("node").context("find node")?;
        let mut draw = Command::new(node);
        draw.arg(command::root().join(DRAW).join("draw.mjs"));
        draw.args(["--only", "monthly", "--prometheus"]).arg(format!("http://{address}"));
        draw.arg("--out").arg(&out).arg("--chromium").arg(chromium);
        run_within(&mut draw, DRAW_PATIENCE)?;
        let mut pictures: Vec<PathBuf> = fs::read_dir(&out)?.flatten().map(|entry| entry.path()).collect();
        pictures.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
        pictures.sort();
        for picture in &pictures {
            println!("the monthly dashboard  {}", picture.display());
        }
        println!("  each panel           {}", out.display());
        Ok(())
    }

    /// Gives the files to the user who called sudo.
    pub(super) fn hand_over(&self) -> Result<()> {
        let id = |name| std::env::var(name).ok().and_then(|id| id.parse::<u32>().ok());
        let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
        give(&self.directory, Uid::from_raw(user), Gid::from_raw(group))
    }
}

fn give(path: &Path, user: Uid, group: Gid) -> Result<()> {
    chown(path, Some(user), Some(group))
        .with_context(|| format!("give {} to user {user}", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user, group)?;
        }
    }
    Ok(())
}

/// Draws a file as a desktop's browser would show it.
fn draw_page(chromium: &Path, page: &Path, picture: &Path) -> Result<()> {
    let profile = tempfile::tempdir().context("make a temporary directory")?;
    let mut draw = Command::new(chromium);
    draw.env("HOME", profile.path());
    draw.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]);
    draw.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    draw.arg(format!("--user-data-dir={}", profile.path().display()));
    draw.arg("--window-size=1200,1700").arg(format!("--screenshot={}", picture.display()));
    draw.arg(format!("file://{}", page.display()));
    run_within(&mut draw, PATIENCE)?;
    ensure!(picture.exists(), "{} has written no picture", chromium.display());
    Ok(())
}

/// Runs a program that says nothing of interest unless it fails.
fn run_within(command: &mut Command, patience: Duration) -> Result<()> {
    let line = command::line(command);
    let log = tempfile::NamedTempFile::new().context("make a temporary file")?;
    command.stdin(Stdio::null()).stdout(log.reopen()?).stderr(log.reopen()?);
    let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if since.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            bail!("`{line}` took more than {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        let said = fs::read_to_string(log.path()).unwrap_or_default();
        bail!("`{line}` failed: {status}: {}", said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_or_lasts_is_named() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        run_within(&mut shell("exit 0"), PATIENCE).unwrap();
        let error = run_within(&mut shell("echo no display; exit 3"), PATIENCE).unwrap_err().to_string();
        assert!(error.ends_with("exit status: 3: no display"), "{error}");
        let error = run_within(&mut shell("exec sleep 60"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("took more than"), "{error}");
    }
}
