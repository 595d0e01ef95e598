//! What a person has chosen, kept between runs.

use std::io;

use pleiad_runtime::{Activations, CacheFormat, experts::ways::WayChoice};
use serde::{Deserialize, Serialize};

use crate::chats::{Sampling, storage::Storage};

/// The file that settings are kept in.
const FILE: &str = "settings.json";
/// Where a file that could not be understood is kept.
const SPOILT: &str = "settings.json.bad";

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThemeChoice {
    /// As the system has it.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// Colours for amounts. All are perceptually even and can be told apart by people with colour-vision deficiencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Palette {
    /// Blue, green, yellow.
    #[default]
    Viridis,
    /// Black, red, yellow.
    Inferno,
    /// Blue, grey, yellow.
    Cividis,
}

/// How a model is loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadSettings {
    /// `auto`, `cpu` or `wgpu:N`, as the command line has it; empty: `auto`.
    pub device: String,
    /// Most bytes on the device; `None`: what it has.
    pub memory_budget: Option<u64>,
    /// How experts that are not resident are served.
    pub misses: WayChoice,
    /// Longest context; `None`: the model's, at most 8192.
    pub context: Option<usize>,
    /// Precision of activations in quantised products.
    pub activations: Activations,
    /// Storage of the latent cache.
    pub cache: CacheFormat,
    /// CPU threads; `None`: all.
    pub threads: Option<usize>,
    /// Tokens drafted for each step where the model has a module for it; 0: none. `None`: as many as pay.
    pub draft: Option<usize>,
}

/// Changes how a model is loaded.
pub type LoadChange = Box<dyn FnOnce(&mut LoadSettings)>;

/// A named set of sampling settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// What it is called.
    pub name: String,
    /// The settings.
    pub sampling: Sampling,
}

/// Where the window was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowPlace {
    /// Outer position in points, where the platform tells.
    pub position: Option<[f32; 2]>,
    /// Inner size in points.
    pub size: [f32; 2],
    /// Whether it filled the screen.
    pub maximised: bool,
}

/// What a person has chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Light or dark.
    pub theme: ThemeChoice,
    /// Size of text, 1 being the usual one; 0.7 to 2.
    pub font_scale: f32,
    /// Colours for amounts.
    pub palette: Palette,
    /// No animation, blinking or smooth scrolling.
    pub reduced_motion: bool,
    /// Reasoning is shown unfolded while and after it is written.
    pub unfold_reasoning: bool,
    /// Enter sends, Shift+Enter makes a line; else the other way round, with Ctrl or Command+Enter sending.
    pub enter_sends: bool,
    /// Whether the list of conversations is shown.
    pub sidebar: bool,
    /// Whether the experts are shown beside the conversation.
    pub experts: bool,
    /// Share of the window's width that the experts take beside the conversation.
    pub experts_share: f32,
    /// Half-life of the recent view, in tokens.
    pub half_life: f32,
    /// How models are loaded.
    pub load: LoadSettings,
    /// Files and folders opened lately, newest first.
    pub recent: Vec<String>,
    /// What the last model loaded is called in [`crate::loading`].
    pub model: Option<String>,
    /// The conversation that was open.
    pub chat: Option<String>,
    /// System prompt of new conversations.
    pub system: String,
    /// A person's own sets of sampling settings.
    pub presets: Vec<Preset>,
    /// Where the window was.
    pub window: Option<WindowPlace>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: ThemeChoice::System,
            font_scale: 1.0,
            palette: Palette::Viridis,
            reduced_motion: false,
            unfold_reasoning: false,
            enter_sends: true,
            sidebar: true,
            experts: true,
            experts_share: 0.45,
            half_life: 32.0,
            load: LoadSettings::default(),
            recent: Vec::new(),
            model: None,
            chat: None,
            system: String::new(),
            presets: Vec::new(),
            window: None,
        }
    }
}

impl Settings {
    /// Most models remembered in [`Settings::recent`].
    const MOST_RECENT: usize = 12;

    /// The settings that were kept. A file that cannot be understood is told about, and kept under another name.
    pub fn read(storage: &mut dyn Storage) -> (Self, Option<String>) {
        match storage.read(FILE) {
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(settings) => (settings.sane(), None),
                Err(e) => {
                    // A copy that cannot be kept is no reason not to start.
                    let _ = storage.write(SPOILT, &bytes);
                    let words =
                        format!("{FILE} cannot be understood ({e}): it is kept as {SPOILT}, and settings are as at first");
                    (Self::default(), Some(words))
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => (Self::default(), None),
            Err(e) => (Self::default(), Some(format!("{FILE}: {e}"))),
        }
    }

    /// Keeps them.
    ///
    /// # Errors
    /// Where the storage cannot.
    pub fn write(&self, storage: &mut dyn Storage) -> io::Result<()> {
        storage.write(FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// Notes that a model was opened.
    pub fn opened(&mut self, key: &str) {
        self.recent.retain(|k| k != key);
        self.recent.insert(0, key.to_owned());
        self.recent.truncate(Self::MOST_RECENT);
        self.model = Some(key.to_owned());
    }

    /// Forgets the files that were opened in an earlier visit of a page: their keys mean nothing in this one. The name of the
    /// last model, where it is one of them.
    pub fn forget_opened(&mut self) -> Option<String> {
        let opened =
            |key: &str| key.strip_prefix("opened:").map(|rest| rest.split_once(':').map_or(rest, |(_, name)| name).to_owned());
        self.recent.retain(|k| opened(k).is_none());
        let last = self.model.as_deref().and_then(opened)?;
        self.model = None;
        Some(last)
    }

    /// Numbers that a person may have written into the file by hand, within what can be drawn.
    fn sane(mut self) -> Self {
        let within = |x: f32, least: f32, most: f32, usual: f32| if x.is_finite() { x.clamp(least, most) } else { usual };
        self.font_scale = within(self.font_scale, 0.7, 2.0, 1.0);
        self.experts_share = within(self.experts_share, 0.2, 0.8, 0.45);
        self.half_life = within(self.half_life, 1.0, 512.0, 32.0);
        if self.window.is_some_and(|w| !w.size.iter().all(|s| s.is_finite() && *s >= 200.0)) {
            self.window = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_opened_in_an_earlier_visit_are_forgotten() {
        let mut settings = Settings::default();
        for key in ["tiny", "opened:3:a:b.gguf", "kept:c.gguf"] {
            settings.opened(key);
        }
        assert_eq!((settings.forget_opened(), settings.model.as_deref()), (None, Some("kept:c.gguf")));
        assert_eq!(settings.recent, ["kept:c.gguf", "tiny"]);
        settings.opened("opened:3:a:b.gguf");
        assert_eq!((settings.forget_opened().as_deref(), settings.model), (Some("a:b.gguf"), None));
    }
}
