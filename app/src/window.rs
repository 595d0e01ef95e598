//! The app in a window of its own.

mod dialogs;
mod icon;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use eframe::{NativeOptions, egui::ViewportBuilder};

use self::dialogs::Dialogs;
use crate::{
    chats::{
        Setup,
        storage::{Folder, Memory, Storage},
    },
    loading::Source,
    settings::{LoadChange, Settings, WindowPlace},
    ui::{App, app::Start, experts::paint},
};

/// The size of a window that has not been opened before, in points.
const SIZE: [f32; 2] = [1280.0, 820.0];

/// What a window opens with.
#[derive(Default)]
pub struct Options {
    /// The model; `None`: the last one, else the embedded one.
    pub model: Option<Source>,
    /// Changes how it is loaded, for this time.
    pub load: Option<LoadChange>,
    /// How answers are made in the conversation that it begins with; `None`: as in the last one.
    pub setup: Option<Setup>,
    /// Where conversations and settings are kept; `None`: where the system keeps such things.
    pub data: Option<PathBuf>,
}

/// Whether there is a display to open a window on.
pub fn display() -> bool {
    let named = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    cfg!(any(target_os = "windows", target_os = "macos")) || named("WAYLAND_DISPLAY") || named("DISPLAY")
}

/// Opens the window, and returns when it is closed.
///
/// # Errors
/// Where the system gives no window, or nothing that draws in one.
pub fn run(options: Options) -> Result<()> {
    let (chats, mut settings) = storage(options.data.as_deref());
    let place = Settings::read(&mut *settings).0.window;
    let native = NativeOptions {
        viewport: viewport(place),
        centered: place.is_none_or(|p| p.position.is_none()),
        ..NativeOptions::default()
    };
    let create =
        move |cc: &eframe::CreationContext<'_>| -> Result<Box<dyn eframe::App>, Box<dyn std::error::Error + Send + Sync>> {
            let wake = cc.egui_ctx.clone();
            let start = Start {
                chats,
                settings,
                shelf: None,
                files: Box::new(Dialogs::new(Arc::new(move || wake.request_repaint()))),
                model: options.model,
                load: options.load,
                setup: options.setup,
                gpu: cc.wgpu_render_state.as_ref().is_some_and(|state| paint::install(&cc.egui_ctx, state)),
                pace: None,
            };
            Ok(Box::new(App::new(&cc.egui_ctx, start)))
        };
    eframe::run_native("Pleiad", native, Box::new(create)).map_err(|e| anyhow!("{e}")).context("no window could be opened")
}

fn viewport(place: Option<WindowPlace>) -> ViewportBuilder {
    let mut viewport = ViewportBuilder::default()
        .with_app_id("pleiad")
        .with_title("Pleiad")
        .with_icon(icon::icon())
        .with_min_inner_size([360.0, 420.0])
        .with_inner_size(place.map_or(SIZE, |p| p.size))
        .with_drag_and_drop(true);
    if let Some(place) = place {
        viewport = viewport.with_maximized(place.maximised);
        if let Some(position) = place.position {
            viewport = viewport.with_position(position);
        }
    }
    viewport
}

/// Where conversations and settings are kept. Where the system names no folder, in memory: the app tells.
fn storage(data: Option<&Path>) -> (Box<dyn Storage>, Box<dyn Storage>) {
    let folder = |path: Option<PathBuf>| -> Box<dyn Storage> {
        match path {
            Some(path) => Box::new(Folder::new(path)),
            None => Box::new(Memory::default()),
        }
    };
    match data {
        Some(data) => (folder(Some(data.join("chats"))), folder(Some(data.to_owned()))),
        None => {
            let chats = dirs::data_dir().map(|d| d.join("pleiad").join("chats"));
            (folder(chats), folder(dirs::config_dir().map(|d| d.join("pleiad"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_where_it_was() {
        let at = |maximised| WindowPlace { position: Some([40.0, 60.0]), size: [1000.0, 700.0], maximised };
        let shown = |place| {
            let v = viewport(place);
            (v.position, v.inner_size, v.maximized)
        };
        let (position, size) = (Some([40.0, 60.0].into()), Some([1000.0, 700.0].into()));
        assert_eq!(shown(Some(at(false))), (position, size, Some(false)));
        assert_eq!(shown(Some(at(true))), (position, size, Some(true)));
        // Wayland tells nobody where a window is.
        assert_eq!(shown(Some(WindowPlace { position: None, ..at(false) })), (None, size, Some(false)));
        assert_eq!(shown(None), (None, Some(SIZE.into()), None));
    }
}
