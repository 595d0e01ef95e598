//! Prompt packs, and the load they put on experts.

mod texts;

use std::sync::Arc;

use super::{
    Shape, Snapshot,
    snapshot::{Divergence, Mover},
};

/// A text that is read to see which experts it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// What it is called.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

impl Domain {
    /// The packs that come with the program.
    pub const ALL: [Self; 6] = [
        Self { name: "Code", text: texts::CODE },
        Self { name: "Mathematics", text: texts::MATHEMATICS },
        Self { name: "English", text: texts::ENGLISH },
        Self { name: "Chinese", text: texts::CHINESE },
        Self { name: "French", text: texts::FRENCH },
        Self { name: "JSON", text: texts::JSON },
    ];
}

/// A text that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Surveyed {
    /// What it is called.
    pub name: String,
    /// Uses of every expert: `[rows, experts]`.
    pub counts: Arc<[u64]>,
    /// Tokens.
    pub tokens: u64,
}

/// Texts that were read, in the order in which they were first read.
#[derive(Clone, Debug, Default)]
pub struct Surveys {
    read: Vec<(Surveyed, Arc<Snapshot>)>,
}

impl Surveys {
    /// Takes the uses `[rows, experts]` of a text; those of an earlier text of that name are replaced. `false`: they are not of
    /// that shape.
    pub fn insert(&mut self, shape: &Shape, name: &str, counts: Vec<u64>) -> bool {
        let Some(snapshot) = Snapshot::new(name, shape, counts) else { return false };
        let tokens = snapshot.tokens.iter().max().copied().unwrap_or(0);
        let surveyed = Surveyed { name: name.to_owned(), counts: Arc::clone(&snapshot.counts), tokens };
        let entry = (surveyed, Arc::new(snapshot));
        match self.read.iter_mut().find(|(s, _)| s.name == name) {
            Some(old) => *old = entry,
            None => self.read.push(entry),
        }
        true
    }

    /// Forgets a text.
    pub fn remove(&mut self, name: &str) {
        self.read.retain(|(s, _)| s.name != name);
    }

    /// Forgets all, as when another model is loaded.
    pub fn clear(&mut self) {
        self.read.clear();
    }

    /// What was read.
    pub fn iter(&self) -> impl Iterator<Item = &Surveyed> {
        self.read.iter().map(|(s, _)| s)
    }

    /// Texts that were read.
    pub fn len(&self) -> usize {
        self.read.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// The counts of a text, to show or to compare.
    pub fn snapshot(&self, name: &str) -> Option<&Arc<Snapshot>> {
        self.read.iter().find(|(s, _)| s.name == name).map(|(_, snapshot)| snapshot)
    }

    /// Uses of every expert as a multiple of an even spread, `[rows, experts]`, as DeepSeek-V3's report shows it for domains
    /// (figure 9); NaN in layers without any.
    pub fn relative(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.snapshot(name)?.relative().map(|r| r as f32).collect())
    }

    /// How different two texts are; `None`: one of them was not read.
    pub fn divergence(&self, a: &str, b: &str) -> Option<Divergence> {
        self.snapshot(a)?.divergence(self.snapshot(b)?)
    }

    /// The `most` experts that two texts use most differently, by more than chance explains.
    pub fn movers(&self, a: &str, b: &str, most: usize) -> Vec<Mover> {
        self.snapshot(a).zip(self.snapshot(b)).map(|(a, b)| a.movers(b, most)).unwrap_or_default()
    }
}
