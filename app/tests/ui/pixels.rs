//! What can be seen: pixels of panels, in both themes, where a picture would be too large to keep.

use egui::{Key, Pos2, Rect, Theme, Vec2, accesskit::Role, pos2};
use egui_kittest::{Harness, kittest::Queryable as _};
use pleiad_app::{
    settings::ThemeChoice,
    ui::{Action, App, Command, Page},
};

use crate::stage::{Stage, ask_and_wait, ctrl, folder, loaded, until};

fn opened(name: &str, theme: Theme) -> Harness<'static, App> {
    let mut stage = Stage { size: Vec2::new(1180.0, 760.0), theme, ..Stage::default() };
    stage.settings.theme = if theme == Theme::Dark { ThemeChoice::Dark } else { ThemeChoice::Light };
    let mut harness = stage.open(&folder(&format!("pixels-{name}-{theme:?}")));
    loaded(&mut harness);
    ask_and_wait(&mut harness, "Tell me a short story about a cat.");
    harness.state_mut().quiet();
    harness.run_steps(4);
    harness
}

/// What was drawn.
struct Picture {
    width: usize,
    bytes: Vec<u8>,
}

fn picture(harness: &mut Harness<'static, App>) -> Picture {
    let image = harness.render().unwrap();
    Picture { width: image.width() as usize, bytes: image.into_raw() }
}

fn pixel(picture: &Picture, at: Pos2) -> [u8; 3] {
    let first = 4 * (at.y as usize * picture.width + at.x as usize);
    [0, 1, 2].map(|i| picture.bytes[first + i])
}

/// Light of a colour by WCAG 2.
fn light(colour: [u8; 3]) -> f64 {
    let linear = |x: u8| match f64::from(x) / 255.0 {
        x if x <= 0.040_45 => x / 12.92,
        x => ((x + 0.055) / 1.055).powf(2.4),
    };
    0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
}

fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// The pixels within a rectangle.
fn within(picture: &Picture, rect: Rect) -> impl Iterator<Item = [u8; 3]> {
    let size = Vec2::new(picture.width as f32, (picture.bytes.len() / 4 / picture.width) as f32);
    let rect = rect.intersect(Rect::from_min_size(Pos2::ZERO, size));
    (rect.top() as u32..rect.bottom() as u32)
        .flat_map(move |y| (rect.left() as u32..rect.right() as u32).map(move |x| pixel(picture, pos2(x as f32, y as f32))))
}

#[test]
fn the_meter_of_the_context_has_a_track_that_can_be_seen() {
    for theme in [Theme::Dark, Theme::Light] {
        let mut harness = opened("meter", theme);
        let bar = harness.get_by_role(Role::Meter).rect();
        let image = picture(&mut harness);
        let (empty, beside) =
            (pixel(&image, bar.right_center() - Vec2::new(6.0, 0.0)), pixel(&image, bar.right_center() + Vec2::new(3.0, 0.0)));
        assert!(contrast(empty, beside) >= 1.4, "{theme:?}: {empty:?} on {beside:?}");
        let full = pixel(&image, bar.left_center() + Vec2::new(2.0, 0.0));
        assert!(contrast(full, empty) >= 1.4, "{theme:?}: {full:?} on {empty:?}");
    }
}

#[test]
fn the_weights_of_a_token_are_not_in_the_dark() {
    let mut harness = opened("now", Theme::Dark);
    let ctx = harness.ctx.clone();
    for _ in 0..9 {
        if harness.query_by_label_contains("Colours from 0 to").is_some_and(|_| shows_weights(&harness)) {
            break;
        }
        harness.state_mut().give(&ctx, Action::Run(Command::NextMode));
        harness.run_steps(4);
    }
    assert!(shows_weights(&harness), "there is no mode of weights");
    let grid = harness.query_all_by_label_contains("Experts,").map(|n| n.rect()).find(|r| r.area() > 5000.0).unwrap();
    let image = picture(&mut harness);
    // The scale ends at 1, 2 or 5 times a power of ten at or above the greatest weight that is shown: it has at least 0.4 of the
    // scale, and viridis is as light as this there.
    let lightest = within(&image, grid.shrink(4.0)).map(light).fold(0.0, f64::max);
    assert!(lightest > 0.13, "{lightest}");
}

fn shows_weights(harness: &Harness<'static, App>) -> bool {
    let mut legends = harness.query_all_by_label_contains("Colours from 0 to");
    legends.any(|n| {
        let name = egui_kittest::kittest::NodeT::accesskit_node(&n).label().unwrap_or_default();
        name.ends_with(" weight") && !name.ends_with("mean weight")
    })
}

#[test]
fn cards_of_the_performance_page_hold_what_they_say() {
    for theme in [Theme::Dark, Theme::Light] {
        let mut harness = opened("performance", theme);
        let ctx = harness.ctx.clone();
        harness.state_mut().give(&ctx, Action::Go(Page::Performance));
        harness.run_steps(6);
        for text in ["latent cache", "working memory", "Router and experts", "positions hold tokens", "each is timed"] {
            assert!(harness.query_all_by_label_contains(text).next().is_some(), "{text}");
        }
        // The bars are drawn: each has the colours of several parts.
        let bars: Vec<Rect> = harness.query_all_by_role(Role::Meter).map(|n| n.rect()).filter(|r| r.height() > 10.0).collect();
        assert!(bars.len() >= 3, "{bars:?}");
        let image = picture(&mut harness);
        for bar in bars.into_iter().filter(|b| b.bottom() < 700.0) {
            let colours: std::collections::HashSet<_> = within(&image, bar.shrink(3.0)).collect();
            assert!(colours.len() >= 3, "{theme:?}: {bar:?}");
        }
    }
}

#[test]
fn the_picker_opens_as_large_as_it_stays() {
    let mut harness = opened("picker", Theme::Dark);
    ctrl(&mut harness, Key::M);
    let close = |h: &Harness<'static, App>| h.get_by_label("Close").rect();
    harness.run_steps(2);
    let at_first = close(&harness);
    until(&mut harness, "the price", |app| app.examined().is_some());
    harness.run_steps(6);
    assert!(at_first.center().distance(close(&harness).center()) < 1.0, "{at_first:?}, then {:?}", close(&harness));
}
