#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod pixels;

use std::sync::Arc;

use egui_kittest::{Harness, kittest::Queryable, wgpu::WgpuTestRenderer};

use super::{super::colours::look_of, *};
use crate::{
    activity::{Home, Scale},
    settings::Settings,
    ui::experts::{legend::legend_ui, paint},
};

/// A model with dense layers first.
pub fn shape(dense: usize, rows: usize, experts: usize, groups: usize, shared: usize) -> Shape {
    let layers = (0..dense).map(|_| LayerKind::Dense).chain((0..rows).map(LayerKind::Mixture)).collect();
    Shape {
        model: "test".into(),
        layers,
        rows: (dense..dense + rows).collect(),
        experts,
        top_k: 8.min(experts),
        groups,
        top_k_groups: 1,
        shared,
    }
}

/// Numbers without a pattern that could hide a mistake in indices.
fn scatter(count: usize) -> impl Iterator<Item = f32> {
    let mut state = 12345u32;
    (0..count).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    })
}

fn field(shape: &Shape, scale: Scale, make: impl Fn(usize, f32) -> f32) -> Field {
    let values: Vec<f32> = scatter(shape.cells()).enumerate().map(|(i, x)| make(i, x)).collect();
    Field {
        rows: shape.rows.len(),
        columns: shape.experts,
        values: values.into(),
        noise: Arc::new([]),
        scale,
        unit: "uses",
        revision: 1,
    }
}

struct State {
    grid: Grid,
    shape: Shape,
    field: Field,
    palette: Palette,
    gpu: bool,
    lit: Vec<Cell>,
    pinned: Option<Cell>,
    /// Room above the grid, which may push it over the edge of the window.
    above: f32,
    last: GridResponse,
    clicks: Vec<Cell>,
}

impl State {
    fn new(shape: Shape, field: Field, gpu: bool) -> Self {
        Self {
            grid: Grid::default(),
            shape,
            field,
            palette: Palette::Viridis,
            gpu,
            lit: Vec::new(),
            pinned: None,
            above: 0.0,
            last: GridResponse::default(),
            clicks: Vec::new(),
        }
    }

    fn show(&mut self, ui: &mut Ui) {
        let cx = GridContext {
            shape: &self.shape,
            field: &self.field,
            palette: self.palette,
            lit: &self.lit,
            pinned: self.pinned,
            gpu: self.gpu,
            reduced_motion: true,
        };
        self.last = self.grid.show(ui, &cx, &|cell| format!("row {} expert {}", cell.row, cell.expert));
        self.clicks.extend(self.last.clicked);
    }
}

/// With a renderer of its own, whose callback is installed.
fn harness(size: [f32; 2], scale: f32, state: State) -> Harness<'static, State> {
    let render = egui_kittest::wgpu::create_render_state(
        egui_kittest::wgpu::default_wgpu_setup(),
        egui_wgpu::RendererOptions::PREDICTABLE,
    );
    let installed = render.clone();
    let mut begun = false;
    Harness::builder()
        .with_size(size)
        .with_pixels_per_point(scale)
        .renderer(WgpuTestRenderer::from_render_state(render))
        .build_ui_state(
            move |ui, state: &mut State| {
                if !begun {
                    begun = true;
                    assert!(paint::install(ui.ctx(), &installed));
                    Theme::apply(ui.ctx(), &Settings::default());
                }
                let (above, height) = (state.above, ui.available_height());
                let area = egui::ScrollArea::vertical().vertical_scroll_offset(above.max(0.0));
                if above > 0.0 {
                    // Scrolled, so that part of the grid lies above the window.
                    area.show(ui, |ui| {
                        ui.set_max_height(height);
                        state.show(ui);
                        ui.add_space(height + above);
                    });
                } else {
                    state.show(ui);
                }
            },
            state,
        )
}

#[test]
fn the_keyboard_moves_a_cursor_that_is_said() {
    let shape = shape(3, 58, 256, 8, 1);
    let state = State::new(shape.clone(), field(&shape, Scale::Linear { max: 1.0 }, |_, x| x), false);
    let mut harness = harness([900.0, 400.0], 1.0, state);
    harness.run();
    harness.get_by_label("Experts, 58 layers by 256").focus();
    harness.run();
    assert_eq!(harness.state().grid.cursor, Some(Cell { row: 0, expert: 0 }));
    for (key, row, expert) in [
        (Key::ArrowRight, 0, 1),
        (Key::ArrowDown, 1, 1),
        (Key::ArrowDown, 2, 1),
        (Key::PageDown, 10, 1),
        (Key::End, 10, 255),
        (Key::ArrowRight, 10, 255),
        (Key::ArrowLeft, 10, 254),
        (Key::Home, 10, 0),
        (Key::ArrowUp, 9, 0),
        (Key::PageUp, 1, 0),
    ] {
        harness.key_press(key);
        harness.run();
        assert_eq!(harness.state().last.pointed, Some(Cell { row, expert }), "{key:?}");
        let node = harness.get_by_label("Experts, 58 layers by 256");
        assert_eq!(node.value(), Some(format!("row {row} expert {expert}")));
        assert!(node.is_focused(), "{key:?} kept the focus");
    }
    harness.key_press_modifiers(Modifiers::COMMAND, Key::End);
    harness.run();
    for key in [Key::Enter, Key::Space] {
        harness.key_press(key);
        harness.run();
    }
    assert_eq!(harness.state().clicks, [Cell { row: 57, expert: 255 }; 2]);
    // Zoomed, the cursor stays in sight.
    for _ in 0..4 {
        harness.key_press(Key::Plus);
        harness.run();
    }
    let grid = &harness.state().grid;
    assert!(grid.octaves > 1.5 && grid.layout.slack()[0] > 500.0);
    let rect = grid.rect_of(Cell { row: 57, expert: 255 }, 1.0).unwrap();
    assert_eq!(grid.cell_at(rect.center(), 1.0), Some(Cell { row: 57, expert: 255 }));
    harness.key_press(Key::Num0);
    harness.run();
    assert_eq!((harness.state().grid.octaves, harness.state().grid.pan), (0.0, [0.0; 2]));
}

#[test]
fn the_pointer_points_clicks_zooms_and_moves() {
    let shape = shape(1, 20, 64, 8, 1);
    let state = State::new(shape.clone(), field(&shape, Scale::Linear { max: 1.0 }, |_, x| x), false);
    let mut harness = harness([700.0, 320.0], 1.0, state);
    harness.run();
    let cell = Cell { row: 7, expert: 33 };
    let at = harness.state().grid.rect_of(cell, 1.0).unwrap().center();
    harness.hover_at(at);
    harness.run();
    assert_eq!(harness.state().last, GridResponse { pointed: Some(cell), clicked: None });
    harness.drag_at(at);
    harness.drop_at(at);
    harness.run();
    assert_eq!(harness.state().clicks, [cell]);
    harness.hover_at(at);
    harness.run();
    // The cell under the pointer stays there when zoomed, up to the separators, which do not grow.
    harness.event(Event::Zoom(3.0));
    harness.run();
    let grid = &harness.state().grid;
    assert!((grid.octaves - 3f32.log2()).abs() < 1e-3, "{}", grid.octaves);
    let found = grid.cell_at(at, 1.0).unwrap();
    assert!(found.row.abs_diff(cell.row) <= 1 && found.expert.abs_diff(cell.expert) <= 1, "{found:?}");
    let before = grid.pan;
    harness.drag_at(at);
    harness.run();
    harness.hover_at(at - vec2(50.0, 20.0));
    harness.run();
    harness.drop_at(at - vec2(50.0, 20.0));
    harness.run();
    let after = harness.state().grid.pan;
    assert!((after[0] - before[0] - 50.0).abs() < 1.5 && (after[1] - before[1] - 20.0).abs() < 1.5, "{before:?} {after:?}");
}

#[test]
fn narrow_rooms_keep_two_pixels_to_a_cell() {
    let shape = shape(3, 58, 256, 8, 1);
    let state = State::new(shape.clone(), field(&shape, Scale::Homes, |_, x| (x * 2.99).floor()), true);
    let mut harness = harness([360.0, 300.0], 1.0, state);
    harness.run();
    let layout = &harness.state().grid.layout;
    assert!(layout.x.cell() >= 2.0 && layout.slack()[0] > 100.0 && layout.view[0] <= 344);
    let _ = harness.render().unwrap();
}

#[test]
fn legends_have_names_and_fit() {
    let shape = shape(1, 4, 16, 1, 1);
    for width in [200.0, 900.0] {
        for (scale, label) in [
            (Scale::Ratio { octaves: 3.0 }, "Colours from 1/8 to 8 uses"),
            (Scale::Log { max: 300.0 }, "0"),
            (Scale::Homes, "In host memory"),
        ] {
            let mut shown = field(&shape, scale, |i, x| if i == 0 { f32::NAN } else { (x * 2.99).floor() });
            if scale != Scale::Homes {
                shown.noise = vec![true; shape.cells()].into();
            }
            let mut harness =
                Harness::builder().with_size([width, 200.0]).build_ui(move |ui| legend_ui(ui, &shown, Palette::Inferno));
            harness.run();
            let node = harness.get_by_label(label);
            assert!(node.rect().right() <= width + 0.5, "{label} ends at {}", node.rect().right());
            harness.get_by_label("Not known");
            assert_eq!(harness.query_by_label("Within chance").is_some(), scale != Scale::Homes);
        }
    }
    assert_eq!(look_of(Scale::Homes, 1.0, Palette::Viridis, false), crate::ui::experts::colours::Look::of_home(Home::Device));
}

/// Pictures to look at, written where `PLEIAD_LOOK` says.
#[test]
fn pictures_to_look_at() {
    let Some(folder) = std::env::var_os("PLEIAD_LOOK") else { return };
    let v3 = shape(3, 58, 256, 8, 1);
    let small = shape(1, 5, 64, 1, 2);
    let ratio = Scale::Ratio { octaves: 3.0 };
    let mut relative = field(&v3, ratio, |_, x| (x - 0.5) * 5.0);
    relative.noise = relative.values.iter().map(|v| v.abs() < 0.4).collect();
    let all = [
        ("relative", v3.clone(), relative, [1200.0, 460.0]),
        (
            "log",
            v3.clone(),
            field(&v3, Scale::Log { max: 4000.0 }, |i, x| if i % 5 == 0 { 0.0 } else { (x * 12.0).exp2().floor() }),
            [1000.0, 420.0],
        ),
        ("homes", v3.clone(), field(&v3, Scale::Homes, |_, x| (x * x * 2.99).floor()), [1200.0, 460.0]),
        ("small", small.clone(), field(&small, Scale::Homes, |_, x| (x * 2.99).floor()), [700.0, 300.0]),
        (
            "narrow",
            v3.clone(),
            field(&v3, Scale::Linear { max: 1.0 }, |i, x| if i % 50 == 0 { f32::NAN } else { x }),
            [360.0, 400.0],
        ),
    ];
    for (name, shape, field, size) in all {
        for theme in [egui::Theme::Dark, egui::Theme::Light] {
            let mut state = State::new(shape.clone(), field.clone(), true);
            state.lit = (0..shape.rows.len()).map(|row| Cell { row, expert: (row * 7) % shape.experts }).collect();
            state.pinned = Some(Cell { row: 2, expert: 20 });
            let render = egui_kittest::wgpu::create_render_state(
                egui_kittest::wgpu::default_wgpu_setup(),
                egui_wgpu::RendererOptions::PREDICTABLE,
            );
            let installed = render.clone();
            let mut harness = Harness::builder()
                .with_size(size)
                .with_theme(theme)
                .renderer(WgpuTestRenderer::from_render_state(render))
                .build_ui_state(
                    move |ui, state: &mut State| {
                        paint::install(ui.ctx(), &installed);
                        let settings = Settings {
                            theme: if theme == egui::Theme::Dark {
                                crate::settings::ThemeChoice::Dark
                            } else {
                                crate::settings::ThemeChoice::Light
                            },
                            ..Default::default()
                        };
                        Theme::apply(ui.ctx(), &settings);
                        egui::Frame::new().fill(Theme::of(ui.ctx()).panel).inner_margin(8.0).show(ui, |ui| {
                            let height = ui.available_height() - 40.0;
                            ui.scope(|ui| {
                                ui.set_max_height(height);
                                state.show(ui);
                            });
                            legend_ui(ui, &state.field, state.palette);
                        });
                    },
                    state,
                );
            harness.run();
            harness.get_by_role(Role::Grid).focus();
            harness.run();
            let path = std::path::Path::new(&folder).join(format!("{name}-{theme:?}.png"));
            harness.render().unwrap().save(path).unwrap();
        }
        let png = crate::ui::experts::picture::png(&shape, &field, Palette::Viridis, name, &["A line, and another".to_owned()])
            .unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}-picture.png")), png).unwrap();
    }
}
