//! Medians, ratios and tables.

/// The median; of an even number of values the mean of the two in the middle. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// `value / base`, where both are known and the base is not nothing.
pub fn ratio(value: Option<f64>, base: Option<f64>) -> Option<f64> {
    Some(value? / base.filter(|&b| b > 0.0)?)
}

/// A number with that many decimals, or a dash.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.decimals$}"))
}

/// A share as a percentage with one decimal, or a dash. Never 100 % where something is missing.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |s| format!("{:.1} %", if s < 1.0 { (s * 100.0).min(99.9) } else { 100.0 }))
}

/// Bytes in binary units, or a dash.
pub fn bytes(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(0.0) => "0".into(),
        Some(b) if b < 1_048_576.0 => format!("{:.1} KiB", b / 1024.0),
        Some(b) if b < 1_073_741_824.0 => format!("{:.1} MiB", b / 1_048_576.0),
        Some(b) => format!("{:.2} GiB", b / 1_073_741_824.0),
    }
}

/// A Markdown table whose columns are aligned in plain text as well. Columns with `true` are aligned to the right.
pub fn table(head: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], i: usize| row.get(i).map_or_else(String::new, |c| escape(c));
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(i, (name, _))| rows.iter().map(|r| cell(r, i).chars().count()).chain([name.chars().count(), 3]).max().unwrap_or(3))
        .collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let pad = |text: String, i: usize| {
        let (width, right) = (widths.get(i).copied().unwrap_or(3), head.get(i).is_some_and(|h| h.1));
        if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    };
    let rule = |i: usize, right: bool| {
        let width = widths.get(i).copied().unwrap_or(3);
        if right { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(width) }
    };
    let mut text = line(head.iter().enumerate().map(|(i, h)| pad(h.0.into(), i)).collect());
    text.push_str(&line(head.iter().enumerate().map(|(i, h)| rule(i, h.1)).collect()));
    for row in rows {
        text.push_str(&line((0..head.len()).map(|i| pad(cell(row, i), i)).collect()));
    }
    text
}

/// Text that stays within its cell.
fn escape(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 10.0]), Some(3.0));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_need_both_sides() {
        assert_eq!(ratio(Some(3.0), Some(4.0)), Some(0.75));
        assert_eq!(ratio(Some(3.0), Some(0.0)), None);
        assert_eq!(ratio(None, Some(4.0)), None);
        assert_eq!(ratio(Some(3.0), None), None);
    }

    #[test]
    fn numbers_in_words() {
        assert_eq!([number(Some(1.25), 1), number(None, 1)], ["1.2", "-"]);
        assert_eq!([percent(Some(0.9999)), percent(Some(1.0)), percent(Some(0.375))], ["99.9 %", "100.0 %", "37.5 %"]);
        assert_eq!([bytes(Some(0.0)), bytes(Some(1536.0)), bytes(Some(3.0 * 1_048_576.0))], ["0", "1.5 KiB", "3.0 MiB"]);
    }

    #[test]
    fn tables_are_aligned_and_hold_their_cells() {
        let rows = [vec!["a|b\nc".to_owned(), "1.5".into()], vec!["d".into()]];
        let text = table(&[("what", false), ("speed", true)], &rows);
        assert_eq!(text, "| what   | speed |\n| ------ | ----: |\n| a\\|b c |   1.5 |\n| d      |       |\n");
    }
}
