//! What a process or worker that runs the suite says: JSON, a line each.
//!
//! A driver may print lines of its own in between, or half of one: each of these starts on a line of its own, and what is none of
//! them is noise.

use std::sync::Arc;

use pleiad_models::Checkpoint;
use pleiad_runtime::gpu::GpuDevice;
use serde::{Deserialize, Serialize};

use crate::{
    report::{Identity, Settings, Test},
    suite::{self, Sink},
};

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The device is open.
    Open {
        /// What it is.
        identity: Box<Identity>,
        /// Ids of all tests that are asked for, in the order in which they run.
        list: Vec<String>,
    },
    /// A test begins.
    Begin {
        /// Its id.
        id: String,
    },
    /// It has ended.
    End {
        /// What it found.
        test: Test,
    },
    /// Nothing more comes: all tests have run, or the device takes no more.
    Over {
        /// What is known of the device by now.
        identity: Box<Identity>,
        /// Why the device takes no more; empty: all tests have run.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        broken: String,
    },
    /// The device cannot be opened.
    Refused {
        /// In words.
        why: String,
    },
}

/// A failure that whoever tests this program plants: the process that runs the suite crashes or hangs when that test begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plant {
    /// It ends, as with a driver that crashes.
    Crash(String),
    /// It goes on for ever, as with a driver that hangs.
    Hang(String),
}

impl Line {
    /// The line as it is sent, with ends of lines before and after.
    pub fn text(&self) -> String {
        // Nothing in a line can fail to be JSON; an empty line is noise.
        format!("\n{}\n", serde_json::to_string(self).unwrap_or_default())
    }

    /// A line that was received; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }
}

/// Runs the suite on an open device and says all of it to `say`, to the last line. `tiny`: see [`suite::run_with`].
pub async fn serve(
    gpu: &Arc<GpuDevice>,
    settings: &Settings,
    done: &[String],
    tiny: Option<Arc<Checkpoint>>,
    plant: Option<&Plant>,
    say: &mut dyn FnMut(&Line),
) {
    say(&Line::Open { identity: Box::new(suite::identity(gpu)), list: suite::list(gpu, settings) });
    let mut speaker = Speaker { gpu, plant, say };
    suite::run_with(gpu, settings, done, &mut speaker, tiny).await;
    let broken = gpu.check().err().map(|e| e.to_string()).unwrap_or_default();
    // Which subgroups kernels see takes kernels, and a device that runs them.
    let identity = if broken.is_empty() { suite::identify(gpu).await } else { suite::identity(gpu) };
    say(&Line::Over { identity: Box::new(identity), broken });
}

/// Says what the suite tells.
struct Speaker<'a> {
    gpu: &'a GpuDevice,
    plant: Option<&'a Plant>,
    say: &'a mut dyn FnMut(&Line),
}

impl Sink for Speaker<'_> {
    fn begin(&mut self, _index: usize, _of: usize, id: &str) {
        (self.say)(&Line::Begin { id: id.to_owned() });
        match self.plant {
            Some(Plant::Crash(planted)) if planted == id => std::process::abort(),
            Some(Plant::Hang(planted)) if planted == id => loop {
                std::thread::park();
            },
            _ => {}
        }
    }

    fn end(&mut self, test: &Test) {
        (self.say)(&Line::End { test: test.clone() });
    }

    // A device that has failed stays failed: what comes next needs another one.
    fn stop(&self) -> bool {
        self.gpu.check().is_err()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;
    use crate::report::{Measure, Verdict};

    #[test]
    fn lines_are_read_back_and_noise_is_not() {
        let measure = Measure { value: f64::INFINITY, at: "a\nb".into(), ..Measure::default() };
        let test = Test {
            id: "scalar/exp".into(),
            verdict: Verdict::Fail,
            words: "x".into(),
            measures: [("worst".to_owned(), measure)].into(),
            seconds: 0.5,
        };
        for line in [
            Line::Open { identity: Box::default(), list: vec!["a/b".into()] },
            Line::Begin { id: "a/b".into() },
            Line::Over { identity: Box::default(), broken: "lost".into() },
            Line::Refused { why: "no".into() },
        ] {
            let text = line.text();
            assert!(text.starts_with('\n') && text.trim().lines().count() == 1);
            assert_eq!(Line::parse(text.trim()).unwrap(), line);
        }
        // What is no number comes back as none.
        let Some(Line::End { test: back }) = Line::parse(Line::End { test }.text().trim()) else { panic!() };
        assert!(back.measures["worst"].value.is_nan() && back.measures["worst"].at == "a\nb");
        for noise in ["", "{", "{}", "MESA: warning", "{\"line\":\"other\"}", "null"] {
            assert_eq!(Line::parse(noise), None, "{noise}");
        }
    }
}
