//! The fonts of formulas: KaTeX's, which hold the shapes that TeX's layout expects.

use std::{borrow::Cow, sync::Arc};

use egui::{Context, FontData, FontDefinitions, FontFamily, FontTweak};

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
