//! Which experts a model used before, kept between runs for a warm start.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The past weighs at most as much as this many tokens, so that a token's influence halves every 45,000 tokens (65,536 ln 2).
const HORIZON: u64 = 1 << 16;
/// Bytes that a profile may have: far more than any model's, far less than memory.
#[cfg(not(target_arch = "wasm32"))]
const LARGEST: u64 = 64 << 20;

/// How often each expert was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Tokens seen.
    pub tokens: u64,
    /// `[bank][expert]`: uses a token, recent tokens weighing more. A bank's sum is top-k.
    pub heat: Vec<Vec<f32>>,
}

impl Profile {
    /// The profile of a model whose banks have so many experts; `None` where there is none that is sound: only warmth is lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn load(directory: &Path, fingerprint: &str, banks: &[usize]) -> Option<Self> {
        let path = path(directory, fingerprint);
        if std::fs::metadata(&path).ok()?.len() > LARGEST {
            return None;
        }
        let profile: Self = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        (profile.is_sound() && profile.heat.iter().map(Vec::len).eq(banks.iter().copied())).then_some(profile)
    }

    /// There are no files here.
    #[cfg(target_arch = "wasm32")]
    pub fn load(_: &Path, _: &str, _: &[usize]) -> Option<Self> {
        None
    }

    /// Writes `<directory>/<fingerprint>.profile.json`, in one piece: readers see the old one or the new one.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where it cannot be written, [`Error::Invalid`] where it holds a number that is negative or not finite.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save(&self, directory: &Path, fingerprint: &str) -> Result<()> {
        use super::bank::temporary::Temporary;
        use std::io::Write;

        if !self.is_sound() {
            return Err(Error::Invalid("a profile of expert use holds a number that is negative or not finite".into()));
        }
        let path = path(directory, fingerprint);
        let write = || -> std::io::Result<()> {
            let text = serde_json::to_vec(self)?;
            let mut temporary = Temporary::new(directory, &format!("{fingerprint}.profile"))?;
            temporary.file().write_all(&text)?;
            // A power cut must not leave an empty file under the name.
            temporary.file().sync_data()?;
            temporary.persist(&path)
        };
        write().map_err(|e| Error::File { file: path.display().to_string(), what: e.to_string() })
    }

    /// There are no files here.
    ///
    /// # Errors
    ///
    /// Always [`Error::File`].
    #[cfg(target_arch = "wasm32")]
    pub fn save(&self, directory: &Path, _: &str) -> Result<()> {
        Err(Error::File { file: directory.display().to_string(), what: "there are no files here".into() })
    }

    /// Takes in that `tokens` tokens used the experts so many times, `[bank][expert]`: a running average that forgets slowly
    /// (about half every 45,000 tokens). A profile of other dimensions begins anew.
    pub fn blend(&mut self, counts: &[Vec<u32>], tokens: u64) {
        if tokens == 0 {
            return;
        }
        if !self.is_sound() || !self.heat.iter().map(Vec::len).eq(counts.iter().map(Vec::len)) {
            *self = Self { tokens: 0, heat: counts.iter().map(|bank| vec![0.0; bank.len()]).collect() };
        }
        let old = self.tokens.min(HORIZON) as f64;
        let all = old + tokens as f64;
        for (heat, counts) in self.heat.iter_mut().zip(counts) {
            for (heat, &count) in heat.iter_mut().zip(counts) {
                *heat = ((f64::from(*heat) * old + f64::from(count)) / all) as f32;
            }
        }
        self.tokens = self.tokens.saturating_add(tokens);
    }

    fn is_sound(&self) -> bool {
        self.heat.iter().flatten().all(|heat| heat.is_finite() && *heat >= 0.0)
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn path(directory: &Path, fingerprint: &str) -> std::path::PathBuf {
    directory.join(format!("{fingerprint}.profile.json"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::super::bank::tests::TempDir;
    use super::*;

    fn profile() -> Profile {
        Profile { tokens: 100, heat: vec![vec![0.5, 1.5, 0.0], vec![2.0]] }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = TempDir::new("profile");
        let nested = dir.path().join("made/on/the/way");
        assert_eq!(Profile::load(&nested, "abc", &[3, 1]), None);
        profile().save(&nested, "abc").unwrap();
        assert_eq!(Profile::load(&nested, "abc", &[3, 1]), Some(profile()));
        let newer = Profile { tokens: 7, ..profile() };
        newer.save(&nested, "abc").unwrap();
        assert_eq!(Profile::load(&nested, "abc", &[3, 1]), Some(newer));
        let names: Vec<_> = std::fs::read_dir(&nested).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["abc.profile.json"]);
    }

    #[test]
    fn other_dimensions_and_damage_are_refused() {
        let dir = TempDir::new("profile-damage");
        profile().save(dir.path(), "abc").unwrap();
        for banks in [&[3][..], &[3, 2], &[1, 3], &[3, 1, 1], &[]] {
            assert_eq!(Profile::load(dir.path(), "abc", banks), None, "{banks:?}");
        }
        assert_eq!(Profile::load(dir.path(), "abd", &[3, 1]), None);
        let file = dir.path().join("abc.profile.json");
        let text = std::fs::read_to_string(&file).unwrap();
        for damaged in [
            &text[..text.len() / 2],
            "",
            "null",
            &text.replace("1.5", "-1.5"),
            &text.replace("1.5", "null"),
            &text.replace("1.5", "1e99"),
        ] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(Profile::load(dir.path(), "abc", &[3, 1]), None, "{damaged}");
        }
        std::fs::write(&file, text).unwrap();
        assert_eq!(Profile::load(dir.path(), "abc", &[3, 1]), Some(profile()));
    }

    #[test]
    fn what_cannot_be_saved_is_an_error() {
        let dir = TempDir::new("profile-refused");
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let profile = Profile { tokens: 1, heat: vec![vec![bad]] };
            assert!(matches!(profile.save(dir.path(), "abc"), Err(Error::Invalid(_))), "{bad}");
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = profile().save(&file, "abc").unwrap_err();
        assert!(matches!(&error, Error::File { file, .. } if file.ends_with("abc.profile.json")), "{error}");
    }

    #[test]
    fn blending_is_a_mean_that_forgets_slowly() {
        let mut profile = Profile::default();
        profile.blend(&[vec![10, 30]], 0);
        assert_eq!(profile, Profile::default());
        profile.blend(&[vec![10, 30]], 20);
        assert_eq!(profile, Profile { tokens: 20, heat: vec![vec![0.5, 1.5]] });
        // Below the horizon the order does not matter: it is the mean over all tokens.
        profile.blend(&[vec![60, 0]], 30);
        assert_eq!(profile.tokens, 50);
        assert!((profile.heat[0][0] - 70.0 / 50.0).abs() < 1e-6 && (profile.heat[0][1] - 30.0 / 50.0).abs() < 1e-6);
        // Above it, old habits fade: after some horizons of another use little is left, and the sum stays top-k.
        profile.tokens = 1 << 40;
        for _ in 0..10 * HORIZON / 1024 {
            profile.blend(&[vec![0, 2048]], 1024);
        }
        assert!(profile.heat[0][0] < 1e-3 && (profile.heat[0][1] - 2.0).abs() < 1e-3, "{profile:?}");
        // Another model.
        profile.blend(&[vec![1], vec![2]], 2);
        assert_eq!(profile, Profile { tokens: 2, heat: vec![vec![0.5], vec![1.0]] });
    }
}
