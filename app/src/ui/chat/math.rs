//! Formulas: typeset where they can be, else in a readable form, their common commands as characters.

use egui::{FontFamily, FontId, Label, TextFormat, TextStyle, Ui, text::LayoutJob};

use super::super::{Theme, formula::formula_ui};

/// Draws a formula. `inline`: within a line of text.
pub fn math_ui(ui: &mut Ui, tex: &str, inline: bool) {
    if formula_ui(ui, tex, inline) {
        return;
    }
    let text = readable(tex);
    let size = TextStyle::Body.resolve(ui.style()).size * if inline { 1.0 } else { 1.1 };
    let color = Theme::of(ui.ctx()).strong;
    let (text_font, other_font) = (FontId::new(size, FontFamily::Proportional), FontId::new(size, FontFamily::Monospace));
    let mut job = LayoutJob::default();
    for c in text.chars() {
        let font = if ui.fonts_mut(|f| f.has_glyph(&text_font, c)) { &text_font } else { &other_font };
        let italics = c.is_alphabetic();
        let format = TextFormat { font_id: font.clone(), color, italics, ..Default::default() };
        job.append(c.encode_utf8(&mut [0; 4]), 0.0, format);
    }
    if inline {
        ui.label(job);
    } else {
        ui.add(Label::new(job).wrap());
    }
}

/// Commands that are one character.
const SYMBOLS: &[(&str, &str)] = &[
    ("alpha", "α"),
    ("beta", "β"),
    ("gamma", "γ"),
    ("delta", "δ"),
    ("epsilon", "ε"),
    ("varepsilon", "ε"),
    ("zeta", "ζ"),
    ("eta", "η"),
    ("theta", "θ"),
    ("vartheta", "θ"),
    ("iota", "ι"),
    ("kappa", "κ"),
    ("lambda", "λ"),
    ("mu", "μ"),
    ("nu", "ν"),
    ("xi", "ξ"),
    ("pi", "π"),
    ("rho", "ρ"),
    ("sigma", "σ"),
    ("tau", "τ"),
    ("upsilon", "υ"),
    ("phi", "φ"),
    ("varphi", "φ"),
    ("chi", "χ"),
    ("psi", "ψ"),
    ("omega", "ω"),
    ("Gamma", "Γ"),
    ("Delta", "Δ"),
    ("Theta", "Θ"),
    ("Lambda", "Λ"),
    ("Xi", "Ξ"),
    ("Pi", "Π"),
    ("Sigma", "Σ"),
    ("Phi", "Φ"),
    ("Psi", "Ψ"),
    ("Omega", "Ω"),
    ("times", "×"),
    ("cdot", "·"),
    ("div", "÷"),
    ("pm", "±"),
    ("mp", "∓"),
    ("ast", "*"),
    ("circ", "∘"),
    ("oplus", "⊕"),
    ("otimes", "⊗"),
    ("le", "≤"),
    ("leq", "≤"),
    ("ge", "≥"),
    ("geq", "≥"),
    ("ne", "≠"),
    ("neq", "≠"),
    ("approx", "≈"),
    ("equiv", "≡"),
    ("sim", "∼"),
    ("propto", "∝"),
    ("ll", "<<"),
    ("gg", ">>"),
    ("in", "∈"),
    ("notin", "∉"),
    ("subset", "⊂"),
    ("subseteq", "⊆"),
    ("cup", "∪"),
    ("cap", "∩"),
    ("emptyset", "∅"),
    ("forall", "∀"),
    ("exists", "∃"),
    ("neg", "¬"),
    ("land", "∧"),
    ("wedge", "∧"),
    ("lor", "∨"),
    ("vee", "∨"),
    ("to", "→"),
    ("rightarrow", "→"),
    ("longrightarrow", "→"),
    ("leftarrow", "←"),
    ("leftrightarrow", "↔"),
    ("mapsto", "↦"),
    ("Rightarrow", "⇒"),
    ("implies", "⇒"),
    ("Leftarrow", "⇐"),
    ("Leftrightarrow", "⇔"),
    ("iff", "⇔"),
    ("infty", "∞"),
    ("partial", "∂"),
    ("nabla", "∇"),
    ("sum", "∑"),
    ("prod", "∏"),
    ("int", "∫"),
    ("ell", "ℓ"),
    ("hbar", "ħ"),
    ("angle", "∠"),
    ("prime", "′"),
    ("ldots", "…"),
    ("dots", "…"),
    ("cdots", "⋯"),
    ("lfloor", "⌊"),
    ("rfloor", "⌋"),
    ("lceil", "⌈"),
    ("rceil", "⌉"),
    ("langle", "⟨"),
    ("rangle", "⟩"),
    ("mid", "|"),
    ("vert", "|"),
    ("lVert", "||"),
    ("rVert", "||"),
    ("quad", "  "),
    ("qquad", "    "),
];

/// Commands that only change how something is set, or how large.
const SILENT: &[&str] = &[
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "displaystyle",
    "textstyle",
    "limits",
    "nolimits",
    "text",
    "textbf",
    "textit",
    "mathrm",
    "mathbf",
    "mathit",
    "mathcal",
    "mathbb",
    "mathsf",
    "operatorname",
    "boxed",
    "vec",
    "hat",
    "bar",
    "tilde",
    "overline",
    "mathfrak",
    "boldsymbol",
];

/// The TeX source as text: commands as characters, fractions with a slash, powers and indices raised or lowered where there are
/// characters for them.
pub fn readable(tex: &str) -> String {
    let mut rest = tex.trim();
    let mut out = String::with_capacity(rest.len());
    translate(&mut rest, &mut out, 0);
    let mut text = String::with_capacity(out.len());
    for word in out.split_inclusive('\n') {
        let line = word.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        text.push_str(&line);
    }
    text.trim().to_owned()
}

/// Deepest nesting of groups: what is deeper is left out, so that no text can exhaust the stack.
const DEEPEST: usize = 32;

/// Translates until the end of the group (its brace is taken), or of the text.
fn translate(rest: &mut &str, out: &mut String, depth: usize) {
    while let Some(c) = rest.chars().next() {
        *rest = rest.get(c.len_utf8()..).unwrap_or("");
        match c {
            '}' => return,
            '{' => out.push_str(&group(rest, depth)),
            '^' | '_' => {
                let text = argument(rest, depth);
                out.push_str(&script(&text, c));
            }
            '\\' => command(rest, out, depth),
            '&' | '~' => out.push(' '),
            '-' => out.push('−'),
            c => out.push(c),
        }
    }
}

/// The rest of a group whose brace was taken.
fn group(rest: &mut &str, depth: usize) -> String {
    let mut inner = String::new();
    if depth < DEEPEST {
        translate(rest, &mut inner, depth + 1);
    } else {
        *rest = "";
    }
    inner
}

/// The argument of a command: a group, a command, or a character.
fn argument(rest: &mut &str, depth: usize) -> String {
    *rest = rest.trim_start();
    let mut inner = String::new();
    match rest.chars().next() {
        Some('{') => {
            *rest = rest.get(1..).unwrap_or("");
            return group(rest, depth);
        }
        Some('\\') if depth < DEEPEST => {
            *rest = rest.get(1..).unwrap_or("");
            command(rest, &mut inner, depth + 1);
        }
        Some(c) => {
            *rest = rest.get(c.len_utf8()..).unwrap_or("");
            inner.push(c);
        }
        None => {}
    }
    inner
}

fn command(rest: &mut &str, out: &mut String, depth: usize) {
    let len = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    if len == 0 {
        // A character that stands for itself, or white space.
        if let Some(c) = rest.chars().next() {
            *rest = rest.get(c.len_utf8()..).unwrap_or("");
            match c {
                '\\' => out.push('\n'),
                ',' | ';' | ':' | ' ' => out.push(' '),
                '!' => {}
                '|' => out.push_str("||"),
                c => out.push(c),
            }
        }
        return;
    }
    let name = rest.get(..len).unwrap_or("");
    *rest = rest.get(len..).unwrap_or("");
    match name {
        "frac" | "dfrac" | "tfrac" => {
            let (above, below) = (argument(rest, depth), argument(rest, depth));
            out.push_str(&format!("{}/{}", bracketed(&above), bracketed(&below)));
        }
        "binom" => {
            let (n, k) = (argument(rest, depth), argument(rest, depth));
            out.push_str(&format!("C({n}, {k})"));
        }
        "sqrt" => {
            if let Some(root) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                out.push_str(&script(root.0, '^'));
                *rest = root.1;
            }
            let text = argument(rest, depth);
            out.push('√');
            out.push_str(&bracketed(&text));
        }
        "begin" | "end" => {
            let _ = argument(rest, depth);
        }
        "tag" => out.push_str(&format!("  ({})", argument(rest, depth))),
        name if SILENT.contains(&name) => {
            // "\left." draws nothing.
            if matches!(name, "left" | "right") {
                *rest = rest.strip_prefix('.').unwrap_or(rest);
            }
        }
        name => match SYMBOLS.iter().find(|(n, _)| *n == name) {
            Some((_, symbol)) => {
                out.push_str(symbol);
                // White space after a command belongs to it; keep it where a letter follows, for legibility.
                if rest.starts_with(' ') && symbol.chars().all(char::is_alphabetic) {
                    *rest = rest.trim_start();
                    out.push(' ');
                }
            }
            // Functions (sin, log) and what is unknown: by name.
            None => out.push_str(name),
        },
    }
}

/// In brackets, unless it is one thing.
fn bracketed(text: &str) -> String {
    let number = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let letter = text.chars().skip(1).all(|c| "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉′".contains(c));
    let simple = number || letter;
    if simple { text.to_owned() } else { format!("({text})") }
}

/// As a power or an index.
fn script(text: &str, mark: char) -> String {
    const FROM: &str = "0123456789";
    let to = if mark == '^' { "⁰¹²³⁴⁵⁶⁷⁸⁹" } else { "₀₁₂₃₄₅₆₇₈₉" };
    let raised: Option<String> =
        text.chars().map(|c| FROM.chars().position(|f| f == c).and_then(|i| to.chars().nth(i))).collect();
    match raised {
        Some(raised) if !text.is_empty() => raised,
        _ if text == "′" => text.to_owned(),
        _ => format!("{mark}{}", bracketed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_formulas_are_readable() {
        for (tex, text) in [
            (r"\frac{a}{b+1}", "a/(b+1)"),
            (r"x^2 + y_{10} \le \sqrt{z}", "x² + y₁₀ ≤ √z"),
            (r"e^{i\pi} = -1", "e^(iπ) = −1"),
            (r"\sum_{i=1}^{n} \alpha_i \times \beta", "∑_(i=1)^n α_i × β"),
            (r"\text{if } x \in A", "if x ∈ A"),
            (r"\left( \frac{1}{2} \right)", "( 1/2 )"),
            (r"\sqrt[3]{8}", "³√8"),
            (r"\sqrt{x^2}", "√x²"),
            (r"f'(x) \to \infty", "f'(x) → ∞"),
            (r"日本\frac{dx}{2}", "日本(dx)/2"),
            (r"\", ""),
        ] {
            assert_eq!(readable(tex), text, "{tex}");
        }
    }

    #[test]
    fn no_text_exhausts_the_stack() {
        assert!(readable(&"{".repeat(100_000)).is_empty());
        assert!(!readable(&r"\frac".repeat(10_000)).is_empty());
        assert!(!readable(&"^".repeat(10_000)).is_empty());
    }
}
