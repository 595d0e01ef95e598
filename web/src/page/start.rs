//! The entry, and the app in the page.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use eframe::{
    Frame, WebOptions, WebRunner,
    egui::{Context, Ui, Visuals},
    egui_wgpu::{WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew},
    wgpu,
};
use pleiad_app::{
    loading::{Source, Wake, beside, elsewhere, shelf::Shelf},
    ui::{Action, App, app::Start, experts::paint},
};
use wasm_bindgen::{JsCast as _, closure::Closure, prelude::*};
use web_sys::HtmlCanvasElement;

use super::{files::Picker, loader::Workers, mirror::Mirror, query::Query, shelf::Opfs, store};
use crate::js;

/// Largest side of a texture that egui is given.
const TEXTURE: u32 = 8192;

/// Frames a second where there is no GPU.
const SOFTWARE_FRAMES: u32 = 8;
/// Time between frames there while an answer is written.
const SOFTWARE_PACE: Duration = Duration::from_millis(400);

/// A page that lost its GPU sooner than that after it was opened would only lose it again, in milliseconds.
const YOUNG: f64 = 10_000.0;

/// The GPU that draws the page was lost.
static LOST: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What frames are asked of, once it is there.
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Starts the app on the page's canvas.
///
/// # Errors
/// Where the page has no canvas, or the browser nothing that draws on it.
#[wasm_bindgen]
pub async fn start_page() -> Result<(), JsValue> {
    // The runner's own hook, set after this one, writes the words, the place and the calls to the console.
    std::panic::set_hook(Box::new(|panic| {
        let words = panic.payload_as_str().unwrap_or("a fault without words");
        let place = panic.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        notice(&format!("Pleiad has stopped: {words}{place}. Reload the page to go on; conversations are kept."));
    }));
    let runner = WebRunner::new();
    let started = start(&runner).await;
    if let Err(e) = &started {
        notice(&format!("Pleiad cannot start: {}", js::words(e)));
    }
    started
}

async fn start(runner: &WebRunner) -> Result<(), JsValue> {
    let canvas = js::element("pleiad-canvas").and_then(|e| e.dyn_into::<HtmlCanvasElement>().ok());
    let canvas = canvas.ok_or("the page has no canvas")?;
    beside::set_spawner(wasm_bindgen_futures::spawn_local);
    elsewhere::set_loader(Rc::new(Workers::new()));
    let wake: Wake = Arc::new(|| {
        CONTEXT.with_borrow(|context| {
            if let Some(context) = context {
                context.request_repaint();
            }
        })
    });
    let mut query = Query::of_page();
    let kept = store::open().await;
    let software = software().await;
    let mut shelf = Opfs::open(Arc::clone(&wake)).await;
    let model = query.model.take().and_then(|url| wanted(&url, shelf.as_deref_mut()));
    let mut complaints = query.complaints;
    if let Some(why) = kept.problem {
        complaints.push(format!("Conversations and settings cannot be kept here: {why}"));
    }
    let create =
        move |cc: &eframe::CreationContext<'_>| -> Result<Box<dyn eframe::App>, Box<dyn std::error::Error + Send + Sync>> {
            let ctx = &cc.egui_ctx;
            CONTEXT.set(Some(ctx.clone()));
            if let Some(state) = &cc.wgpu_render_state {
                let wake = Arc::clone(&wake);
                state.device.set_device_lost_callback(move |reason, _| {
                    if reason != wgpu::DeviceLostReason::Destroyed {
                        LOST.store(true, Ordering::Relaxed);
                        wake();
                    }
                });
            }
            let start = Start {
                chats: kept.chats,
                settings: kept.settings,
                files: Box::new(Picker::new(Arc::clone(&wake))),
                shelf,
                model,
                load: query.load,
                setup: query.setup,
                gpu: cc.wgpu_render_state.as_ref().is_some_and(|state| paint::install(ctx, state)),
                pace: software.then_some(SOFTWARE_PACE),
            };
            let mut app = App::new(ctx, start);
            for complaint in complaints {
                app.give(ctx, Action::Complain(complaint));
            }
            Ok(Box::new(PageApp { app, mirror: Mirror::new(ctx, wake), drawn: false, colour: None }))
        };
    runner.start(canvas, options(software), Box::new(create)).await?;
    leave(runner)
}

/// Whether what draws is no GPU: then drawing and computing are in each other's way.
async fn software() -> bool {
    pleiad_runtime::gpu::enumerate().await.first().is_none_or(|a| a.description.software)
}

/// How the canvas is drawn: with WebGPU, or WebGL 2 where the browser has none.
fn options(software: bool) -> WebOptions {
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    setup.instance_descriptor.backends = wgpu::Backends::BROWSER_WEBGPU | wgpu::Backends::GL;
    // The model is what needs the fast one.
    setup.power_preference = wgpu::PowerPreference::LowPower;
    setup.device_descriptor = Arc::new(|adapter| {
        let webgl = adapter.get_info().backend == wgpu::Backend::Gl;
        let limits = if webgl { wgpu::Limits::downlevel_webgl2_defaults() } else { wgpu::Limits::default() };
        let side = adapter.limits().max_texture_dimension_2d.min(TEXTURE);
        wgpu::DeviceDescriptor {
            label: Some("page"),
            required_limits: wgpu::Limits { max_texture_dimension_2d: side, ..limits },
            ..Default::default()
        }
    });
    WebOptions {
        wgpu_options: WgpuConfiguration { wgpu_setup: WgpuSetup::CreateNew(setup), ..Default::default() },
        max_fps: software.then_some(SOFTWARE_FRAMES),
        ..WebOptions::default()
    }
}

/// The model that an address means: the one on the shelf; else it is downloaded, if the person agrees. A link alone must not
/// fill somebody's disk.
fn wanted(url: &str, shelf: Option<&mut (dyn Shelf + 'static)>) -> Option<Source> {
    let shelf = shelf?;
    if let Some(file) = shelf.files().iter().find(|f| f.url == url && f.is_complete()) {
        return Some(Source::Kept(file.name.clone()));
    }
    let question = format!("This link comes with a model. Download it from {url} and keep it in this browser?");
    if web_sys::window().is_some_and(|w| w.confirm_with_message(&question).unwrap_or(false)) {
        shelf.download(url);
    }
    None
}

/// Keeps what is not kept yet whenever the page is hidden or left: it may not come back.
fn leave(runner: &WebRunner) -> Result<(), JsValue> {
    let window = web_sys::window().ok_or("there is no page")?;
    let document = window.document().ok_or("there is no page")?;
    let runner = runner.clone();
    let left = Closure::<dyn FnMut()>::new(move || {
        if let Some(mut page) = runner.app_mut::<PageApp>() {
            eframe::App::on_exit(&mut page.app);
        }
        store::flush();
    });
    // It listens as long as the page is there.
    let left = left.into_js_value();
    window.add_event_listener_with_callback("pagehide", left.unchecked_ref())?;
    document.add_event_listener_with_callback("visibilitychange", left.unchecked_ref())
}

/// The GPU that draws is gone, and a canvas gets no other: the page is opened anew, unless that would lose something.
fn open_anew(app: &mut App) {
    let opened = app.models().get(None).is_some_and(|m| matches!(m.source, Source::Opened(..)));
    let window = web_sys::window();
    let young = window.as_ref().and_then(|w| w.performance()).is_none_or(|p| p.now() < YOUNG);
    eframe::App::on_exit(app);
    store::flush();
    let begun = !opened && !young && window.is_some_and(|w| w.location().reload().is_ok());
    if !begun {
        let again = if opened { ", and open the model's file again" } else { "" };
        notice(&format!(
            "The browser has lost the GPU that draws this page. Reload the page to go on{again}; conversations are kept."
        ));
    }
}

/// Shows that the program cannot go on, and why.
fn notice(words: &str) {
    if let Some(element) = js::element("pleiad-notice") {
        element.set_text_content(Some(words));
        // It is there, if it is anywhere.
        let _ = element.remove_attribute("hidden");
    }
    if let Some(status) = js::element("pleiad-status") {
        let _ = status.set_attribute("data-state", "error");
        status.set_text_content(Some(words));
    }
    starting_is_over();
}

/// Takes away what the page shows until there is a frame.
fn starting_is_over() {
    if let Some(element) = js::element("pleiad-start") {
        // `page.js` hides it too.
        let _ = element.set_attribute("hidden", "");
    }
}

/// The app, and what in the page follows it.
struct PageApp {
    app: App,
    mirror: Mirror,
    /// The first frame is there.
    drawn: bool,
    /// The colour that the browser's own bars have.
    colour: Option<[u8; 3]>,
}

impl PageApp {
    /// Gives the browser's bars the colour of the window.
    fn colour_bars(&mut self, visuals: &Visuals) {
        let colour = eframe::App::clear_color(&self.app, visuals).map(|c| (c * 255.0).round() as u8);
        let [r, g, b, _] = colour;
        if self.colour == Some([r, g, b]) {
            return;
        }
        self.colour = Some([r, g, b]);
        let document = web_sys::window().and_then(|w| w.document());
        if let Some(meta) = document.and_then(|d| d.query_selector("meta[name=theme-color]").ok().flatten()) {
            // Bars without colour are still bars.
            let _ = meta.set_attribute("content", &format!("#{r:02x}{g:02x}{b:02x}"));
        }
    }
}

impl eframe::App for PageApp {
    fn logic(&mut self, ctx: &Context, _frame: &mut Frame) {
        self.app.tick(ctx);
        if let Some(news) = store::news() {
            self.app.give(ctx, news.map_or_else(Action::Complain, Action::Tell));
        }
        self.mirror.update(ctx, &mut self.app);
        // An answer that is being written goes on without being seen.
        if !self.app.busy() && LOST.swap(false, Ordering::Relaxed) {
            open_anew(&mut self.app);
        }
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut Frame) {
        self.app.show(ui);
        self.colour_bars(ui.visuals());
        if !std::mem::replace(&mut self.drawn, true) {
            starting_is_over();
        }
    }

    fn clear_color(&self, visuals: &Visuals) -> [f32; 4] {
        eframe::App::clear_color(&self.app, visuals)
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn std::any::Any> {
        Some(self)
    }
}
