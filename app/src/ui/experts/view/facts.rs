//! What is known of one expert.

use egui::{Grid, RichText, Ui};

use crate::{
    activity::{Facts, Home, Shape},
    ui::{Theme, parts},
};

/// Where an expert is, in words.
pub fn home_name(home: Home) -> &'static str {
    match home {
        Home::Host => "host memory",
        Home::Device => "on the GPU",
        Home::Moving => "moved for the latest token",
    }
}

/// What an expert is called.
pub fn title(f: &Facts) -> String {
    format!("Layer {}, expert {}", f.layer, f.cell.expert)
}

/// An expert in a sentence, for screen readers. `shown`: what the grid shows of it.
pub fn sentence(f: &Facts, shown: &str) -> String {
    let mut text = format!("{}: {shown}, chosen {} times", title(f), f.count);
    if let Some(home) = f.home {
        text += &format!(", {}", home_name(home));
    }
    if f.misses > 0 {
        text += &format!(", {} misses", f.misses);
    }
    text
}

/// Every fact as name and value.
fn lines(f: &Facts, shape: &Shape, shown: &str) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if shape.groups > 1 {
        lines.push(("Group", format!("{} of {}", f.group + 1, shape.groups)));
    }
    lines.push(("Shown", shown.to_owned()));
    let share = f.share.map_or_else(String::new, |share| format!(", {} of its layer's uses", percent(share)));
    lines.push(("Chosen", format!("{} times{share}, place {}", parts::count(f.count), f.rank)));
    if let (Some(ratio), Some((low, high))) = (f.relative, f.interval) {
        let chance = if f.noise { "; chance explains it" } else { "" };
        lines.push(("Relative", format!("{ratio:.2}× uniform (95 %: {low:.2} to {high:.2}{chance})")));
    }
    lines.push(("Recent", format!("{:.1} uses", f.recent)));
    lines.push(("Mean weight", f.mean_weight.map_or_else(|| "never chosen".into(), |w| format!("{w:.3}"))));
    if let Some(home) = f.home {
        lines.push(("Home", home_name(home).into()));
    }
    if f.hits + f.misses > 0 {
        lines.push(("Hits, misses", format!("{}, {}", parts::count(f.hits), parts::count(f.misses))));
        lines.push(("Moved", parts::bytes(f.bytes)));
    }
    let last = match f.used_ago {
        Some(0) => "for the latest token".into(),
        Some(1) => "1 token ago".into(),
        Some(n) => format!("{} tokens ago", parts::count(n)),
        None => "never".into(),
    };
    lines.push(("Last used", last));
    if !f.choosers.is_empty() {
        let tokens: Vec<String> = f.choosers.iter().map(|c| format!("“{}” {}×", super::strip::shown(&c.text), c.times)).collect();
        lines.push(("Tokens", tokens.join(", ")));
    }
    if !f.partners.is_empty() {
        let partners: Vec<String> = f.partners.iter().map(|p| format!("{} ({:.1}×)", p.expert, p.lift)).collect();
        lines.push(("Chosen with", partners.join(", ")));
    }
    lines
}

/// Title and facts, as two columns.
pub fn facts_ui(ui: &mut Ui, f: &Facts, shape: &Shape, shown: &str, id: &str) {
    let strong = Theme::of(ui.ctx()).strong;
    ui.label(RichText::new(title(f)).color(strong).strong());
    // A column that follows its texts would make the card jump from cell to cell.
    let room = (ui.available_width() - 92.0).max(120.0);
    let grid = Grid::new(id).num_columns(2).min_col_width(80.0).max_col_width(room).min_row_height(15.0).spacing([8.0, 3.0]);
    grid.striped(false).show(ui, |ui| {
        for (name, value) in lines(f, shape, shown) {
            ui.label(parts::small(ui, name));
            ui.label(RichText::new(value).text_style(Theme::small()));
            ui.end_row();
        }
    });
}

/// A share for people.
pub fn percent(share: f64) -> String {
    let p = 100.0 * share;
    if p > 0.0 && p < 0.095 {
        "below 0.1 %".into()
    } else if p < 10.0 {
        format!("{p:.1} %")
    } else {
        format!("{p:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::{
        Cell,
        facts::{Chooser, Partner},
    };

    #[test]
    fn facts_in_words() {
        let mut f = Facts {
            cell: Cell { row: 2, expert: 17 },
            layer: 3,
            group: 0,
            tokens: 400,
            count: 12,
            share: Some(0.031),
            relative: Some(1.98),
            interval: Some((1.2, 3.1)),
            noise: false,
            recent: 4.25,
            mean_weight: Some(0.4),
            home: Some(Home::Device),
            hits: 10,
            misses: 2,
            bytes: 1 << 20,
            used_ago: Some(1),
            rank: 3,
            choosers: vec![Chooser { id: 1, text: " the".into(), times: 3, mean_weight: 0.5 }],
            partners: vec![Partner { expert: 4, times: 5, lift: 2.5 }],
        };
        let shape = super::super::fixture::shape(4, 32, 4);
        assert_eq!(sentence(&f, "12 uses"), "Layer 3, expert 17: 12 uses, chosen 12 times, on the GPU, 2 misses");
        let of = |f: &Facts, name: &str| lines(f, &shape, "12 uses").into_iter().find(|(n, _)| *n == name).map(|(_, v)| v);
        assert_eq!(of(&f, "Chosen").as_deref(), Some("12 times, 3.1 % of its layer's uses, place 3"));
        assert_eq!(of(&f, "Relative").as_deref(), Some("1.98× uniform (95 %: 1.20 to 3.10)"));
        assert_eq!(of(&f, "Last used").as_deref(), Some("1 token ago"));
        assert_eq!(of(&f, "Tokens").as_deref(), Some("“·the” 3×"));
        assert_eq!(of(&f, "Chosen with").as_deref(), Some("4 (2.5×)"));
        f = Facts { count: 0, mean_weight: None, used_ago: None, home: None, hits: 0, misses: 0, noise: true, ..f };
        assert_eq!(of(&f, "Mean weight").as_deref(), Some("never chosen"));
        assert_eq!(of(&f, "Last used").as_deref(), Some("never"));
        assert_eq!(of(&f, "Moved"), None);
        assert!(of(&f, "Relative").is_some_and(|t| t.ends_with("chance explains it)")));
    }

    #[test]
    fn small_shares_are_not_zero() {
        assert_eq!([percent(0.0), percent(0.0004), percent(0.031), percent(0.5)], ["0.0 %", "below 0.1 %", "3.1 %", "50 %"]);
    }
}
