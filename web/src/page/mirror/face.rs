//! What an element shows of a widget.

use egui::accesskit::{Action, Node, Role, Toggled};
use wasm_bindgen::JsCast as _;
use web_sys::{Element, HtmlInputElement, HtmlTextAreaElement};

/// Attributes that faces set.
const ATTRIBUTES: usize = 12;

/// An element without its children.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Its kind.
    pub tag: &'static str,
    attributes: [(&'static str, Option<String>); ATTRIBUTES],
    /// What a field holds.
    value: Option<String>,
    /// Words, where there is nothing in it.
    text: Option<String>,
}

/// Whether a widget is something to show: runs of text are part of their label.
pub fn is_shown(node: &Node) -> bool {
    node.role() != Role::TextRun && !node.is_hidden()
}

impl Face {
    /// The face of a widget, `full`: which has others in it.
    pub fn of(node: &Node, full: bool) -> Self {
        let (tag, role, kind) = element(node);
        let field = matches!(tag, "input" | "textarea");
        let number = kind.is_some_and(|k| k != "text");
        let toggled = node.toggled().map(|t| match t {
            Toggled::True => "true",
            Toggled::False => "false",
            Toggled::Mixed => "mixed",
        });
        let pressed = role.is_none() && tag == "button";
        let yes = |on: bool| on.then(|| "true".to_owned());
        let text = |words: &str| Some(words.to_owned()).filter(|w| !w.is_empty());
        let bound = |bound: Option<f64>| bound.filter(|_| field && number).map(|b| b.to_string());
        // Words without a role have no name but themselves.
        let label = node.label().map(str::to_owned).filter(|l| !l.is_empty());
        let words = if full || field { None } else { node.value().and_then(text).or_else(|| label.clone()) };
        let named = label.filter(|l| role.is_some() || tag != "div" || words.as_ref() != Some(l));
        let progress = node.numeric_value().filter(|_| role == Some("progressbar"));
        let off = node.is_disabled();
        Self {
            tag,
            attributes: [
                ("role", role.map(str::to_owned)),
                ("type", kind.map(str::to_owned)),
                ("aria-label", named),
                ("aria-pressed", toggled.filter(|_| pressed).map(str::to_owned)),
                ("aria-checked", toggled.filter(|_| matches!(role, Some("checkbox" | "radio" | "switch"))).map(str::to_owned)),
                ("aria-selected", toggled.filter(|_| matches!(role, Some("tab" | "option"))).map(str::to_owned)),
                ("aria-expanded", node.is_expanded().map(|on| on.to_string())),
                ("aria-valuenow", progress.map(|p| p.to_string())),
                ("min", bound(node.min_numeric_value())),
                ("max", bound(node.max_numeric_value())),
                (
                    "step",
                    (field && number).then(|| node.numeric_value_step().map_or_else(|| "any".to_owned(), |s| s.to_string())),
                ),
                ("disabled", yes(off && tag != "div")),
            ],
            value: field.then(|| match node.numeric_value() {
                Some(value) if number => value.to_string(),
                _ => node.value().unwrap_or_default().to_owned(),
            }),
            text: words,
        }
    }

    /// Whether it is written into, and not pressed.
    pub fn is_field(&self) -> bool {
        self.value.is_some()
    }

    /// Whether what is written into it is a number.
    pub fn is_number(&self) -> bool {
        self.is_field() && self.attributes.iter().any(|(name, value)| *name == "step" && value.is_some())
    }

    /// Writes what differs from what it shows so far.
    pub fn apply(&self, element: &Element, before: Option<&Self>) {
        if before == Some(self) {
            return;
        }
        for (i, (name, value)) in self.attributes.iter().enumerate() {
            if before.is_some_and(|b| b.attributes[i].1 == *value) {
                continue;
            }
            // Names are constants that every element takes.
            let _ = match value {
                Some(value) => element.set_attribute(name, value),
                None => element.remove_attribute(name),
            };
        }
        if before.is_none_or(|b| b.text != self.text) && (self.text.is_some() || before.is_some_and(|b| b.text.is_some())) {
            element.set_text_content(self.text.as_deref());
        }
        if let Some(value) = &self.value
            && before.is_none_or(|b| b.value.as_ref() != Some(value))
        {
            if let Some(field) = element.dyn_ref::<HtmlInputElement>() {
                field.set_value(value);
            } else if let Some(field) = element.dyn_ref::<HtmlTextAreaElement>() {
                field.set_value(value);
            }
        }
    }
}

/// The element for a widget: its kind, the role that its kind does not tell, and the type of a field.
fn element(node: &Node) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    let written = node.supports_action(Action::SetValue);
    match node.role() {
        Role::TextInput | Role::SearchInput | Role::EditableComboBox => ("input", None, Some("text")),
        Role::MultilineTextInput => ("textarea", None, None),
        Role::Slider if written => ("input", None, Some("range")),
        Role::SpinButton | Role::NumberInput if written => ("input", None, Some("number")),
        Role::Button | Role::DefaultButton | Role::DisclosureTriangle => ("button", None, None),
        Role::CheckBox => ("button", Some("checkbox"), None),
        Role::RadioButton => ("button", Some("radio"), None),
        Role::Switch => ("button", Some("switch"), None),
        Role::Tab => ("button", Some("tab"), None),
        Role::ComboBox => ("button", Some("combobox"), None),
        Role::ListBoxOption => ("button", Some("option"), None),
        Role::MenuItem => ("button", Some("menuitem"), None),
        Role::Link => ("button", Some("link"), None),
        Role::Heading => ("div", Some("heading"), None),
        Role::Image | Role::Canvas => ("div", Some("img"), None),
        Role::ProgressIndicator => ("div", Some("progressbar"), None),
        Role::Dialog => ("div", Some("dialog"), None),
        Role::Alert => ("div", Some("alert"), None),
        Role::AlertDialog => ("div", Some("alertdialog"), None),
        Role::Status => ("div", Some("status"), None),
        Role::List => ("div", Some("list"), None),
        Role::ListItem => ("div", Some("listitem"), None),
        Role::ListBox => ("div", Some("listbox"), None),
        Role::TabList => ("div", Some("tablist"), None),
        Role::Table | Role::Grid => ("div", Some("table"), None),
        Role::Row => ("div", Some("row"), None),
        Role::Cell | Role::GridCell => ("div", Some("cell"), None),
        Role::ColumnHeader => ("div", Some("columnheader"), None),
        Role::RowHeader => ("div", Some("rowheader"), None),
        // Words can be clicked to select them, which is nothing here.
        Role::Label => ("div", None, None),
        // What the app clicks is pressed here too.
        _ if node.supports_action(Action::Click) && (node.label().is_some() || node.value().is_some()) => ("button", None, None),
        _ => ("div", None, None),
    }
}
