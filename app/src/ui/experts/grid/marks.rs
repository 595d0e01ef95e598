//! Outlines of cells on top of them. All are rectangles at whole pixels, so that they are crisp without anti-aliasing.

use egui::{Color32, Mesh, Rect, Vec2, pos2};

/// A frame of `width` pixels around a rectangle.
fn frame(mesh: &mut Mesh, inner: Rect, width: f32, colour: Color32) {
    let outer = inner.expand(width);
    for side in [
        Rect::from_min_max(outer.min, pos2(outer.right(), inner.top())),
        Rect::from_min_max(pos2(outer.left(), inner.bottom()), outer.max),
        Rect::from_min_max(pos2(outer.left(), inner.top()), pos2(inner.left(), inner.bottom())),
        Rect::from_min_max(pos2(inner.right(), inner.top()), pos2(outer.right(), inner.bottom())),
    ] {
        mesh.add_colored_rect(side, colour);
    }
}

/// An outline around a cell, `width` pixels wide. Where the cell is large enough, a line of the other colour inside sets it off
/// from cells of a like colour.
pub fn outline(mesh: &mut Mesh, cell: Rect, width: f32, scale: f32, colour: Color32, other: Color32) {
    let pixel = scale.floor().max(1.0) / scale;
    frame(mesh, cell, width * pixel, colour);
    if cell.width().min(cell.height()) >= 8.0 * pixel {
        frame(mesh, cell.shrink(pixel), pixel, other);
    }
}

/// The mark of the pinned cell: a frame with a rim, and a flag at its corner, which shows at any size of cells.
pub fn pin(mesh: &mut Mesh, cell: Rect, scale: f32, colour: Color32, other: Color32) {
    let pixel = scale.floor().max(1.0) / scale;
    frame(mesh, cell.expand(2.0 * pixel), pixel, other);
    outline(mesh, cell, 2.0, scale, colour, other);
    let corner = cell.expand(2.0 * pixel).min;
    let leg = (cell.width().min(cell.height()) * 0.6).clamp(7.0 * pixel, 14.0 * pixel) + 2.0 * pixel;
    // The rim keeps it apart from the colours around.
    for (grow, colour) in [(pixel, other), (0.0, colour)] {
        let first = mesh.vertices.len() as u32;
        let at = corner - Vec2::splat(grow);
        let leg = leg + 3.5 * grow;
        for pos in [at, pos2(at.x + leg, at.y), pos2(at.x, at.y + leg)] {
            mesh.colored_vertex(pos, colour);
        }
        mesh.add_triangle(first, first + 1, first + 2);
    }
}
