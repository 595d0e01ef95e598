//! The app on a picture.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use cpu_time::ThreadTime;
use eframe::{
    egui::{self, Event, RawInput, Rect, Vec2, ViewportInfo},
    egui_wgpu::{RenderState, RendererOptions, ScreenDescriptor, WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew},
    wgpu,
};
use pleiad_app::{
    chats::{Setup, storage::Memory},
    loading::Source,
    settings::Settings,
    ui::{App, app::Start, experts::paint, files::NoFiles},
};

/// Size of the picture, in points and pixels.
const SIZE: [u32; 2] = [1280, 820];
/// Frames a second.
const RATE: f64 = 60.0;

/// The app on a picture.
pub struct Screen {
    ctx: egui::Context,
    /// The app.
    pub app: App,
    state: RenderState,
    target: wgpu::TextureView,
    begun: Instant,
    frames: u64,
    events: Vec<Event>,
}

impl Screen {
    /// Opens the app, with the embedded model on its way.
    pub fn open(settings: &Settings, setup: Setup) -> Result<Self> {
        let mut create = WgpuSetupCreateNew::without_display_handle();
        create.native_adapter_selector = Some(Arc::new(|adapters, _| {
            // What a window would take: a GPU, and lavapipe where there is none.
            let rank = |a: &&wgpu::Adapter| {
                let info = a.get_info();
                let kind = [wgpu::DeviceType::DiscreteGpu, wgpu::DeviceType::IntegratedGpu, wgpu::DeviceType::VirtualGpu];
                (kind.iter().position(|k| *k == info.device_type).unwrap_or(kind.len()), !info.name.contains("llvmpipe"))
            };
            adapters.iter().min_by_key(rank).cloned().ok_or_else(|| "there is nothing to draw with".to_owned())
        }));
        let setup_new = WgpuSetup::CreateNew(create);
        let instance = pollster::block_on(setup_new.new_instance());
        let configuration = WgpuConfiguration { wgpu_setup: setup_new, ..WgpuConfiguration::default() };
        let state = pollster::block_on(RenderState::create(&configuration, &instance, None, RendererOptions::default()))
            .map_err(|e| anyhow!("{e}"))
            .context("nothing to draw with")?;
        let texture = state.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("screen"),
            size: wgpu::Extent3d { width: SIZE[0], height: SIZE[1], depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: state.target_format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
            view_formats: &[],
        });
        let target = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let ctx = egui::Context::default();
        let gpu = paint::install(&ctx, &state);
        let mut storage = Memory::default();
        settings.write(&mut storage)?;
        let start = Start {
            chats: Box::new(Memory::default()),
            settings: Box::new(storage),
            shelf: None,
            files: Box::new(NoFiles::default()),
            model: Some(Source::Tiny),
            load: None,
            setup: Some(setup),
            gpu,
            pace: None,
        };
        let app = App::new(&ctx, start);
        Ok(Self { ctx, app, state, target, begun: Instant::now(), frames: 0, events: Vec::new() })
    }

    /// The context, to give actions with.
    pub fn ctx(&self) -> egui::Context {
        self.ctx.clone()
    }

    /// An event for the next frame.
    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Draws a frame; the CPU time of this thread that it took, in milliseconds.
    pub fn frame(&mut self) -> f64 {
        let size = Vec2::new(SIZE[0] as f32, SIZE[1] as f32);
        let mut input = RawInput {
            screen_rect: Some(Rect::from_min_size(egui::Pos2::ZERO, size)),
            time: Some(self.begun.elapsed().as_secs_f64()),
            focused: true,
            events: std::mem::take(&mut self.events),
            ..RawInput::default()
        };
        input.viewports.insert(input.viewport_id, ViewportInfo { native_pixels_per_point: Some(1.0), ..ViewportInfo::default() });
        let clock = ThreadTime::now();
        let output = self.ctx.run_ui(input, |ui| {
            self.app.tick(ui.ctx());
            self.app.show(ui);
        });
        let shapes = self.ctx.tessellate(output.shapes, output.pixels_per_point);
        let screen = ScreenDescriptor { size_in_pixels: SIZE, pixels_per_point: output.pixels_per_point };
        let (device, queue) = (&self.state.device, &self.state.queue);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut renderer = self.state.renderer.write();
        for (id, deltas) in &output.textures_delta.set {
            for delta in deltas {
                renderer.update_texture(device, queue, *id, delta);
            }
        }
        let before = renderer.update_buffers(device, queue, &mut encoder, &shapes, &screen);
        {
            let attachment = wgpu::RenderPassColorAttachment {
                view: &self.target,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Store },
            };
            let pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                color_attachments: &[Some(attachment)],
                ..wgpu::RenderPassDescriptor::default()
            });
            renderer.render(&mut pass.forget_lifetime(), &shapes, &screen);
        }
        queue.submit(before.into_iter().chain([encoder.finish()]));
        for id in &output.textures_delta.free {
            renderer.free_texture(id);
        }
        let spent = clock.elapsed().as_secs_f64() * 1e3;
        drop(renderer);
        // Frames do not pile up: a window would wait for its turn to present.
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
        self.frames += 1;
        spent
    }

    /// Waits until the next frame is due.
    pub fn pace(&self, since: Instant, frame: u64) {
        let due = Duration::from_secs_f64(frame as f64 / RATE);
        std::thread::sleep(due.saturating_sub(since.elapsed()));
    }
}
