//! Drawing Markdown, block by block: a block out of sight is skipped, and only the last is cut anew while it grows.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use egui::{TextStyle, Ui, UiBuilder, Vec2};
use egui_commonmark::{CommonMarkCache, CommonMarkViewer};

use super::{
    super::{Action, Theme, theme},
    blocks::{Blocks, Kind, definitions},
    code::Highlighter,
    math, prepare,
    tables::Table,
    words::Link,
};

/// Points beyond the visible part in which blocks are drawn.
const MARGIN: f32 = 300.0;

/// A Markdown text, cut and measured.
#[derive(Default)]
pub(super) struct Document {
    blocks: Blocks,
    definitions: String,
    /// For each block, a hash of all that its height depends on, and the height.
    heights: Vec<(u64, f32)>,
    len: usize,
}

/// Where a text stands in its message.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it begins in the message, in bytes.
    pub base: usize,
    /// Whether it still grows.
    pub live: bool,
}

/// What drawing needs: parsed grammars, and code that was highlighted.
#[derive(Default)]
pub(super) struct Renderer {
    cache: Option<CommonMarkCache>,
    code: Highlighter,
}

impl Renderer {
    /// Draws a text, which is that of the last call or goes on from it.
    pub fn ui(&mut self, ui: &mut Ui, document: &mut Document, place: Place<'_>, link: &mut Link, out: &mut Vec<Action>) {
        let text = if place.live { prepare::settled(place.text) } else { place.text };
        let kept = document.blocks.grow(text);
        if document.len != text.len() {
            document.len = text.len();
            document.definitions = definitions(text, &document.blocks.list);
        }
        document.heights.truncate(kept.max(document.heights.len().min(document.blocks.list.len())));
        document.heights.resize(document.blocks.list.len(), (0, 0.0));

        let mark = Theme::of(ui.ctx()).mark;
        let width = ui.available_width();
        let size = TextStyle::Body.resolve(ui.style()).size;
        let seen = ui.clip_rect().expand(MARGIN);
        let count = document.blocks.list.len();
        ui.spacing_mut().item_spacing.y = theme::GAP;
        // Rows of text, not of buttons: else marks of lists stand above their text.
        ui.spacing_mut().interact_size.y = ui.text_style_height(&TextStyle::Body);
        for (i, (block, height)) in document.blocks.list.iter().zip(&mut document.heights).enumerate() {
            let last = place.live && i + 1 == count;
            let mut hasher = DefaultHasher::new();
            (&block.range, block.inset, width.to_bits(), size.to_bits(), last, document.definitions.len()).hash(&mut hasher);
            let key = hasher.finish();
            if height.0 == key {
                let top = ui.cursor().top();
                if top > seen.bottom() || top + height.1 < seen.top() {
                    ui.allocate_space(Vec2::new(width, height.1));
                    continue;
                }
            }
            let begun = link.begin(ui, &(place.base + block.range.start..place.base + block.range.end));
            let mut rect = ui.available_rect_before_wrap();
            rect.min.x += (block.inset.min(12) as f32) * size * 0.5;
            let builder = UiBuilder::new().id_salt(("block", i)).max_rect(rect);
            let source = text.get(block.range.clone()).unwrap_or("");
            let mut from = block.range.start;
            let drawn = ui.scope_builder(builder, |ui| {
                ui.set_width(rect.width());
                match &block.kind {
                    Kind::Code { lang, content, .. } => {
                        from = content.start;
                        let lang = text.get(lang.clone()).unwrap_or("");
                        let lines = prepare::dedent(text.get(content.clone()).unwrap_or(""), block.inset);
                        let id = ui.unique_id().with("highlighted");
                        self.code.ui(ui, id, lang, lines.trim_end_matches('\n'), out);
                    }
                    Kind::Math { content } => math::math_ui(ui, text.get(content.clone()).unwrap_or(""), false),
                    Kind::Text => {
                        let dedented = prepare::dedent(source, block.inset);
                        let mended = if last { Cow::Owned(prepare::mend(&dedented).into_owned()) } else { dedented };
                        let mut markdown = prepare::inline(&mended, last);
                        let cache = self.cache.get_or_insert_with(CommonMarkCache::default);
                        let mut show = |ui: &mut Ui, markdown: &str| {
                            CommonMarkViewer::new().render_math_fn(Some(&math::math_ui)).show(ui, cache, markdown);
                        };
                        if let Some(table) = Table::parse(&markdown) {
                            return table.ui(ui, &mut show);
                        }
                        if !document.definitions.is_empty() && markdown.contains('[') {
                            let with = format!("{markdown}\n\n{}", document.definitions);
                            markdown = Cow::Owned(with);
                        }
                        show(ui, &markdown);
                    }
                }
            });
            let rect = drawn.response.rect;
            *height = (key, rect.height());
            let source = text.get(from..block.range.end).unwrap_or("");
            link.end(ui, begun, rect, source, place.base + from, mark);
        }
    }
}
