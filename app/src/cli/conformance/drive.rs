//! A run on one adapter: process after process, until every test has a result.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use pleiad_conformance::{
    report::Settings,
    session::{Ended, Next, Session, Taken},
    wire::{Line, Plant},
};

use super::{
    child::{Adapter, Job},
    process::{Heard, Process},
};
use crate::cli::{
    interrupt,
    term::{Bar, Unit},
};

/// How an adapter is tested.
pub struct Drive<'a> {
    /// The adapter.
    pub adapter: &'a Adapter,
    /// What is asked for.
    pub settings: &'a Settings,
    /// Longest time between two lines.
    pub timeout: Duration,
    /// A failure that is planted.
    pub plant: Option<&'a Plant>,
    /// Without a progress bar.
    pub quiet: bool,
}

impl Drive<'_> {
    /// Runs what is left of a run, and keeps what is found in a file as it comes. Says too whether it was interrupted.
    pub fn run(&self, mut session: Session, partial: &Path) -> Result<(Session, bool)> {
        let name = || partial.display().to_string();
        let mut file = File::create(partial).with_context(name)?;
        file.write_all(session.text().as_bytes()).with_context(name)?;
        let mut bar = Bar::new("Testing", Unit::Of("tests"), self.quiet);
        bar.tell(&self.adapter.identity.name);
        loop {
            session.begin();
            let before = session.tests.len();
            let mut keep = |session: &Session, taken: Taken| -> Result<()> {
                let text = match taken {
                    Taken::Nothing => return Ok(()),
                    Taken::Head => session.head_text(),
                    Taken::Test => session.tests.last().map(Session::test_text).unwrap_or_default(),
                };
                file.write_all(text.as_bytes()).with_context(name)
            };
            let Some((ended, seconds)) = self.process(&mut session, &mut bar, &mut keep)? else { return Ok((session, true)) };
            let (next, taken) = session.end(ended, before, seconds);
            keep(&session, taken)?;
            if next == Next::Finish {
                return Ok((session, false));
            }
        }
    }

    /// Follows a process to its end. `None`: it was interrupted. Else how it ended, and how long what it did last has taken.
    fn process(
        &self,
        session: &mut Session,
        bar: &mut Bar,
        keep: &mut dyn FnMut(&Session, Taken) -> Result<()>,
    ) -> Result<Option<(Ended, f64)>> {
        let job = Job::Run {
            adapter: self.adapter.place,
            settings: self.settings.clone(),
            done: session.done(),
            plant: self.plant.cloned(),
        };
        let process = Process::start(&job)?;
        let mut since = Instant::now();
        loop {
            match process.hear() {
                Heard::Line(text) => {
                    // Anything else is a driver's noise.
                    let Some(line) = Line::parse(&text) else { continue };
                    since = Instant::now();
                    if let Line::Begin { id } = &line {
                        bar.tell(id);
                    }
                    let taken = session.take(line);
                    keep(session, taken)?;
                    bar.set(session.tests.len() as u64, session.list.len().max(1) as u64);
                }
                Heard::End => {
                    let seconds = since.elapsed().as_secs_f64();
                    return Ok(Some((process.end()?, seconds)));
                }
                Heard::Nothing => {}
            }
            if interrupt::asked() {
                return Ok(None);
            }
            if since.elapsed() > self.timeout {
                let seconds = since.elapsed().as_secs_f64();
                let words = format!("it took more than {} s, and its process was ended", self.timeout.as_secs_f64());
                return Ok(Some((Ended::TooLong(words), seconds)));
            }
        }
    }
}
