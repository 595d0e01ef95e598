//! The fonts of formulas: KaTeX's, which hold the shapes that TeX's layout expects.

use std::{borrow::Cow, sync::Arc};

use egui::{
    Context, FontData, FontDefinitions, FontFamily, FontTweak,
    epaint::text::{FontInsert, FontPriority, InsertFontFamily},
};

/// The faces that formulas are set in, as [`ratex_font::FontId`] names them.
const FACES: [&str; 19] = [
    "AMS-Regular",
    "Caligraphic-Regular",
    "Fraktur-Regular",
    "Fraktur-Bold",
    "Main-Bold",
    "Main-BoldItalic",
    "Main-Italic",
    "Main-Regular",
    "Math-BoldItalic",
    "Math-Italic",
    "SansSerif-Bold",
    "SansSerif-Italic",
    "SansSerif-Regular",
    "Script-Regular",
    "Size1-Regular",
    "Size2-Regular",
    "Size3-Regular",
    "Size4-Regular",
    "Typewriter-Regular",
];

/// Adds the fonts of formulas to egui's own.
pub fn install(ctx: &Context) {
    let mut fonts = FontDefinitions::default();
    for face in FACES {
        let Some(bytes) = ratex_katex_fonts::ttf_bytes(&format!("KaTeX_{face}.ttf")) else { continue };
        let data = match bytes {
            Cow::Borrowed(bytes) => FontData::from_static(bytes),
            Cow::Owned(bytes) => FontData::from_owned(bytes),
        };
        fonts.font_data.insert(face.to_owned(), Arc::new(data.tweak(FontTweak::default())));
        fonts.families.insert(FontFamily::Name(face.into()), vec![face.to_owned()]);
    }
    // Arrows and signs that the face of running text lacks.
    if let Some(proportional) = fonts.families.get_mut(&FontFamily::Proportional) {
        proportional.push("Hack".to_owned());
    }
    ctx.set_fonts(fonts);
}

/// Adds a font for characters that no other has, after all that there are. One of that name that is there already stays. Whether
/// the bytes are a font.
pub fn add(ctx: &Context, name: &str, bytes: Vec<u8>) -> bool {
    // egui panics where they are not, and a site may answer with anything.
    if !is_font(&bytes) {
        return false;
    }
    let last = |family| InsertFontFamily { family, priority: FontPriority::Lowest };
    let families = vec![last(FontFamily::Proportional), last(FontFamily::Monospace)];
    ctx.add_font(FontInsert::new(name, FontData::from_owned(bytes), families));
    ctx.request_repaint();
    true
}

/// Whether these are the bytes of a whole OpenType font: its table directory (OpenType 1.9, "Organization of an OpenType font")
/// has the tables that drawing needs, and they lie within the bytes.
fn is_font(bytes: &[u8]) -> bool {
    let number = |at: usize, n: usize| -> Option<usize> {
        Some(bytes.get(at..at.checked_add(n)?)?.iter().fold(0, |x, &b| (x << 8) | usize::from(b)))
    };
    let directory = || -> Option<bool> {
        let version = bytes.get(..4)?;
        if ![&[0, 1, 0, 0], b"OTTO", b"true"].contains(&<&[u8; 4]>::try_from(version).ok()?) {
            return None;
        }
        let mut needed = vec![*b"cmap", *b"head", *b"hhea", *b"hmtx", *b"maxp"];
        for record in 0..number(4, 2)? {
            let at = 12 + 16 * record;
            let (offset, length) = (number(at + 8, 4)?, number(at + 12, 4)?);
            if offset.checked_add(length)? > bytes.len() {
                return None;
            }
            needed.retain(|tag| bytes.get(at..at + 4) != Some(tag.as_slice()));
        }
        Some(needed.is_empty())
    };
    directory().unwrap_or(false)
}

/// The family of a face; running text where there is none of that name.
pub fn family(ctx: &Context, face: &str) -> FontFamily {
    let family = FontFamily::Name(face.into());
    // egui panics where a family is not there: a context that nobody prepared, or a face of another script.
    if FACES.contains(&face) && ctx.fonts(|f| f.definitions().families.contains_key(&family)) {
        family
    } else {
        FontFamily::Proportional
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn a_font_is_added_after_all_others_and_nothing_else_is() {
        let ctx = Context::default();
        install(&ctx);
        let font = ratex_katex_fonts::ttf_bytes("KaTeX_Main-Regular.ttf").unwrap().into_owned();
        for bad in [&b"<!doctype html><title>Not found</title>"[..], &[], &font[..3], &font[..font.len() / 2]] {
            assert!(!add(&ctx, "bad", bad.to_vec()));
        }
        assert!(add(&ctx, "more", font));
        let _ = ctx.run_ui(egui::RawInput::default(), |ui| {
            ui.label("x");
        });
        ctx.fonts(|f| {
            for family in [FontFamily::Proportional, FontFamily::Monospace] {
                let faces = &f.definitions().families[&family];
                assert!(faces.len() > 1 && faces.last().unwrap() == "more", "{faces:?}");
            }
        });
    }
}
