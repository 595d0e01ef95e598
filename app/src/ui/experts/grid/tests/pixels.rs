//! Shader, texture and Rust draw the same.

use super::*;
use crate::ui::experts::colours::look_of;

/// All cells of two pictures and of the colours in Rust, pixel by pixel: the largest difference, and how many were compared.
fn compare(make: impl Fn(bool) -> State, size: [f32; 2], scale: f32) -> (u8, usize) {
    let mut pictures = Vec::new();
    for gpu in [true, false] {
        let mut harness = harness(size, scale, make(gpu));
        harness.run();
        let image = harness.render().unwrap();
        pictures.push((image, harness));
    }
    let (drawn, harness) = &pictures[0];
    let state = harness.state();
    let (mut worst, mut compared) = (0, 0);
    for y in 0..drawn.height() {
        for x in 0..drawn.width() {
            let pos = pos2(x as f32 + 0.5, y as f32 + 0.5) / scale;
            if state.above > 0.0 && !(40.0..size[1] - 40.0).contains(&pos.y) {
                continue; // Faded at the edges of what scrolls.
            }
            let (Some(across), Some(down)) = state.grid.places_at(pos, scale) else { continue };
            if across.kind != Kind::Cells || down.kind != Kind::Cells || across.border || down.border {
                continue;
            }
            let index = down.index * state.shape.experts + across.index;
            let noise = state.field.noise.get(index).copied().unwrap_or_default();
            let look = look_of(state.field.scale, state.field.values[index], state.palette, noise);
            let expected = look.at(across.quarter, down.quarter).to_array();
            let (gpu, texture) = (drawn.get_pixel(x, y).0, pictures[1].0.get_pixel(x, y).0);
            for (gpu, (texture, expected)) in gpu.into_iter().zip(texture.into_iter().zip(expected)) {
                worst = worst.max(gpu.abs_diff(texture)).max(gpu.abs_diff(expected));
            }
            compared += 1;
        }
    }
    (worst, compared)
}

#[test]
fn shader_and_texture_draw_the_same() {
    let shape = || shape(3, 10, 64, 8, 1);
    let scales: Vec<(&str, Field)> = vec![
        ("linear", field(&shape(), Scale::Linear { max: 0.8 }, |_, x| x)),
        ("log", field(&shape(), Scale::Log { max: 5000.0 }, |i, x| if i % 7 == 0 { 0.0 } else { (x * 12.0).exp2().floor() })),
        (
            "ratio",
            field(&shape(), Scale::Ratio { octaves: 3.0 }, |i, x| if i % 9 == 0 { f32::NEG_INFINITY } else { x * 8.0 - 4.0 }),
        ),
        ("signed", field(&shape(), Scale::Signed { max: 0.5 }, |_, x| x * 1.2 - 0.6)),
        ("homes", field(&shape(), Scale::Homes, |_, x| (x * 2.999).floor())),
        ("unknown", field(&shape(), Scale::Linear { max: 1.0 }, |i, x| if i % 3 == 0 { f32::NAN } else { x })),
        ("flat", field(&shape(), Scale::Log { max: 0.0 }, |i, _| (i % 2) as f32)),
    ];
    for (name, mut field) in scales {
        if name == "ratio" {
            field.noise = scatter(shape().cells()).map(|x| x < 0.4).collect();
        }
        for (size, scale) in [([800.0, 400.0], 1.0), ([420.0, 250.0], 1.5)] {
            let (worst, compared) = compare(|gpu| State::new(shape(), field.clone(), gpu), size, scale);
            assert!(compared > 20_000, "{name}: {compared}");
            assert!(worst <= 2, "{name} at {scale}: {worst} of 255");
        }
    }
}

#[test]
fn cells_stay_where_they_are_when_scrolled_away() {
    let shape = || shape(1, 10, 64, 8, 1);
    let make = |gpu| {
        let field = field(&shape(), Scale::Linear { max: 1.0 }, |_, x| x);
        State { above: 60.0, ..State::new(shape(), field, gpu) }
    };
    let (worst, compared) = compare(make, [700.0, 260.0], 1.0);
    assert!(compared > 10_000 && worst <= 2, "{worst} of 255, {compared} pixels");
    let mut harness = harness([700.0, 260.0], 1.0, make(true));
    harness.run();
    assert!(harness.state().grid.origin[1] < 0, "it is scrolled away");
}

#[test]
fn only_what_changed_is_drawn_again() {
    let shape = shape(0, 6, 64, 1, 0);
    let state = State::new(shape.clone(), field(&shape, Scale::Linear { max: 1.0 }, |_, x| x), true);
    let mut harness = harness([700.0, 300.0], 1.0, state);
    harness.run();
    let before = harness.render().unwrap();
    let (lookups, number) = (harness.state().grid.lookups, harness.state().grid.layout.number());
    harness.run_steps(5);
    assert_eq!((harness.state().grid.lookups, harness.state().grid.layout.number()), (lookups, number));
    // Other numbers of the same revision are not sent; of another revision they are.
    harness.state_mut().field.values = vec![1.0; shape.cells()].into();
    harness.run();
    assert!(before == harness.render().unwrap());
    harness.state_mut().field.revision += 1;
    harness.run();
    assert!(before != harness.render().unwrap());
}
