//! What a frame costs: printed, not asserted, for machines differ.

use super::*;

#[test]
fn a_frame_costs_little() {
    let shape = shape(3, 58, 256, 8, 1);
    for gpu in [true, false] {
        let mut state = State::new(shape.clone(), field(&shape, Scale::Log { max: 5000.0 }, |_, x| (x * 12.0).exp2()), gpu);
        state.lit = (0..58).flat_map(|row| (0..8).map(move |k| Cell { row, expert: (row * 7 + k * 31) % 256 })).collect();
        state.pinned = Some(Cell { row: 4, expert: 9 });
        let spent = Rc::new(RefCell::new(Vec::new()));
        let inside = spent.clone();
        let ctx = egui::Context::default();
        Theme::apply(&ctx, &Settings::default());
        let render = egui_kittest::wgpu::create_render_state(
            egui_kittest::wgpu::default_wgpu_setup(),
            egui_wgpu::RendererOptions::PREDICTABLE,
        );
        assert!(paint::install(&ctx, &render));
        let input =
            || egui::RawInput { screen_rect: Some(Rect::from_min_size(Pos2::ZERO, vec2(1280.0, 500.0))), ..Default::default() };
        for _ in 0..60 {
            state.field.revision += 1;
            let mut output = ctx.run_ui(input(), |ui| {
                let begin = Instant::now();
                state.show(ui);
                inside.borrow_mut().push(begin.elapsed());
            });
            output.textures_delta.clear();
        }
        let mut times = spent.borrow().clone();
        times.sort();
        eprintln!("58 x 256, every frame another field, gpu {gpu}: median {:?}, worst {:?}", times[30], times[59]);
    }
}

#[test]
fn sending_a_field_costs_little() {
    let shape = shape(3, 58, 256, 8, 1);
    let field = field(&shape, Scale::Log { max: 5000.0 }, |_, x| (x * 12.0).exp2());
    let render = egui_kittest::wgpu::create_render_state(
        egui_kittest::wgpu::default_wgpu_setup(),
        egui_wgpu::RendererOptions::PREDICTABLE,
    );
    let mut resources = egui_wgpu::CallbackResources::default();
    let screen = egui_wgpu::ScreenDescriptor { size_in_pixels: [1280, 500], pixels_per_point: 1.0 };
    let lookup: Arc<[u32]> = vec![1 << 18; 1780].into();
    let mut times = Vec::new();
    for revision in 0..60 {
        let mut encoder = render.device.create_command_encoder(&Default::default());
        let source = CellSource::Values { values: field.values.clone(), noise: field.noise.clone(), revision };
        let pixels = Pixels { origin: [0, 0], size: [1280, 500], lookup: lookup.clone(), revision: 1 };
        let target = Target { format: render.target_format, samples: 1 };
        let single = [egui::Color32::GRAY; 2];
        let paint = CellsPaint::new(egui::Id::unique("grid"), target, &field, source, Palette::Viridis, pixels, single);
        let begin = Instant::now();
        paint.prepare(&render.device, &render.queue, &screen, &mut encoder, &mut resources);
        times.push(begin.elapsed());
        render.queue.submit([encoder.finish()]);
    }
    let first = times.remove(0);
    times.sort();
    eprintln!("sending 58 x 256: first {first:?}, median {:?}, worst {:?}", times[29], times[58]);
}
