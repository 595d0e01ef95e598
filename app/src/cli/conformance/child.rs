//! The process that meets a driver. It is told what to do by a line of JSON on standard input, and answers in lines of JSON on
//! standard output.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use pleiad_conformance::{
    report::{Identity, Settings},
    suite,
    wire::{self, Line, Plant},
};
use pleiad_runtime::gpu::{AdapterDescription, GpuAdapter, adapters::kind_name, enumerate_gl, enumerate_with};
use serde::{Deserialize, Serialize};

/// What such a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Tell which adapters there are.
    List {
        /// Those that OpenGL reaches, instead of all others.
        gl: bool,
        /// See [`Settings::strict`].
        strict: bool,
    },
    /// Run the suite.
    Run {
        /// Where.
        adapter: Place,
        /// How.
        settings: Settings,
        /// Without these.
        done: Vec<String>,
        /// A failure that is planted.
        plant: Option<Plant>,
    },
}

/// Where an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Among those that OpenGL reaches.
    pub gl: bool,
    /// Its number there.
    pub index: usize,
}

/// An adapter that was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adapter {
    /// Where it is.
    pub place: Place,
    /// Its number among all.
    pub number: usize,
    /// What is known of it before it is open.
    pub identity: Identity,
}

impl Adapter {
    /// What `--device` calls it.
    pub fn device(&self) -> String {
        format!("wgpu:{}", self.number)
    }
}

async fn found(gl: bool, strict: bool) -> Vec<GpuAdapter> {
    if gl { enumerate_gl(strict).await } else { enumerate_with(strict).await }
}

/// Does what the first line on standard input says.
pub fn run() -> Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line).context("this command is started by `pleiad conformance` only")?;
    // Ctrl-C is for the parent, who ends this process.
    let _ = ctrlc::try_set_handler(|| {});
    // A parent that is gone closes standard input.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    match job {
        Job::List { gl, strict } => {
            let all = pollster::block_on(found(gl, strict));
            let adapter = |(index, a): (usize, &GpuAdapter)| Adapter {
                place: Place { gl, index },
                number: index,
                identity: described(&a.description),
            };
            let all: Vec<Adapter> = all.iter().enumerate().map(adapter).collect();
            writeln!(io::stdout().lock(), "\n{}", serde_json::to_string(&all)?)?;
        }
        Job::Run { adapter, settings, done, plant } => pollster::block_on(test(adapter, &settings, &done, plant.as_ref())),
    }
    Ok(())
}

async fn test(place: Place, settings: &Settings, done: &[String], plant: Option<&Plant>) {
    let mut say = |line: &Line| {
        // A parent that is gone needs no answer.
        let mut out = io::stdout().lock();
        let _ = out.write_all(line.text().as_bytes()).and_then(|()| out.flush());
    };
    let adapter = found(place.gl, settings.strict).await.into_iter().nth(place.index);
    let opened = match adapter {
        Some(adapter) => adapter.open(suite::device_options(settings)).await.map_err(|e| e.to_string()),
        None => Err("it is not there any more".to_owned()),
    };
    match opened {
        Ok(gpu) => wire::serve(&gpu, settings, done, None, plant, &mut say).await,
        Err(why) => say(&Line::Refused { why }),
    }
}

fn described(a: &AdapterDescription) -> Identity {
    Identity {
        name: a.name.clone(),
        kind: kind_name(a.kind).to_owned(),
        backend: format!("{:?}", a.backend),
        driver: a.driver.clone(),
        vendor_id: a.vendor,
        device_id: a.device,
        software: a.software,
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        tier: a.tier.to_string(),
        ..Identity::default()
    }
}
