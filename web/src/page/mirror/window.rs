//! The window as elements, for those who asked for it: every widget as a button, a field or words, made of what AccessKit would tell
//! an operating system.

use std::{cell::RefCell, collections::HashMap};

use egui::{
    Context, Event, FullOutput, Plugin, RawInput,
    accesskit::{Action, ActionData, ActionRequest, Node, NodeId, TreeId, TreeUpdate},
};
use wasm_bindgen::{JsCast as _, closure::Closure};
use web_sys::{Document, Element, HtmlInputElement, HtmlTextAreaElement};

use super::face::{Face, is_shown};
use crate::js;

/// Where a page remembers that somebody asked for it.
const REMEMBERED: &str = "pleiad-window";
/// The attribute that names an element's widget.
const NODE: &str = "data-node";

thread_local! {
    /// What is shown. The plugin has to be one that threads may share, which elements are not.
    static WINDOW: RefCell<Option<Window>> = const { RefCell::new(None) };
}

/// Offers it: the button `#pleiad-reader` shows and hides it.
pub fn offer(ctx: &Context) {
    let Some(root) = js::element("pleiad-window") else { return };
    let listen = |name: &str, on: &Element, then: Closure<dyn FnMut(web_sys::Event)>| {
        // Where it cannot listen there is nothing to press either.
        let _ = on.add_event_listener_with_callback(name, then.into_js_value().unchecked_ref());
    };
    for name in ["click", "change"] {
        let ctx = ctx.clone();
        let ask = move |event: web_sys::Event| {
            let Some(target) = event.target().and_then(|t| t.dyn_into::<Element>().ok()) else { return };
            let asked = WINDOW.with_borrow_mut(|w| w.as_mut().is_some_and(|w| w.ask(event.type_() == "click", &target)));
            if asked {
                ctx.request_repaint();
            }
        };
        listen(name, &root, Closure::new(ask));
    }
    WINDOW.set(Some(Window { root, shown: HashMap::new(), asked: Vec::new() }));
    ctx.add_plugin(Tap);
    let storage = web_sys::window().and_then(|w| w.local_storage().ok().flatten());
    let remembered = storage.as_ref().and_then(|s| s.get_item(REMEMBERED).ok().flatten());
    let mut on = remembered.is_some();
    let button = js::element("pleiad-reader");
    switch(ctx, button.as_ref(), on);
    let Some(button) = button else { return };
    let (ctx, pressed) = (ctx.clone(), button.clone());
    listen(
        "click",
        &button,
        Closure::new(move |_| {
            on = !on;
            // Where nothing is remembered, it is asked for again.
            let _ = storage.as_ref().map(|s| if on { s.set_item(REMEMBERED, "shown") } else { s.remove_item(REMEMBERED) });
            switch(&ctx, Some(&pressed), on);
        }),
    );
}

/// Begins to show it, or ends.
fn switch(ctx: &Context, button: Option<&Element>, on: bool) {
    if on {
        ctx.enable_accesskit();
    } else {
        ctx.disable_accesskit();
        WINDOW.with_borrow_mut(|w| w.as_mut().map(Window::clear));
    }
    if let Some(button) = button {
        let _ = button.set_attribute("aria-pressed", if on { "true" } else { "false" });
    }
    ctx.request_repaint();
}

/// Takes what egui says of every frame, and gives it what was pressed.
struct Tap;

impl Plugin for Tap {
    fn debug_name(&self) -> &'static str {
        "window as elements"
    }

    fn input_hook(&mut self, _: &Context, input: &mut RawInput) {
        WINDOW.with_borrow_mut(|w| {
            if let Some(window) = w {
                input.events.extend(window.asked.drain(..).map(Event::AccessKitActionRequest));
            }
        });
    }

    fn output_hook(&mut self, _: &Context, output: &mut FullOutput) {
        if let Some(update) = output.platform_output.accesskit_update.take() {
            WINDOW.with_borrow_mut(|w| w.as_mut().map(|w| w.show(update)));
        }
    }
}

/// A widget that has an element.
struct Shown {
    element: Element,
    face: Face,
}

/// The element, what is in it, and what was pressed there.
struct Window {
    root: Element,
    shown: HashMap<NodeId, Shown>,
    asked: Vec<ActionRequest>,
}

impl Window {
    fn clear(&mut self) {
        self.root.set_text_content(None);
        self.shown.clear();
        self.asked.clear();
    }

    /// Shows what has changed. egui tells of all widgets every time.
    fn show(&mut self, update: TreeUpdate) {
        let Some(document) = self.root.owner_document() else { return };
        let nodes: HashMap<NodeId, Node> = update.nodes.into_iter().collect();
        let Some(top) = update.tree.map(|t| t.root) else { return };
        self.shown.retain(|id, shown| {
            let stays = nodes.contains_key(id);
            if !stays {
                shown.element.remove();
            }
            stays
        });
        let element = self.node(&document, &nodes, top);
        if let Some(element) = element.filter(|e| e.parent_element().as_ref() != Some(&self.root)) {
            self.root.replace_children_with_node_1(&element);
        }
    }

    /// The element of a node, which shows it and all below it.
    fn node(&mut self, document: &Document, nodes: &HashMap<NodeId, Node>, id: NodeId) -> Option<Element> {
        let node = nodes.get(&id)?;
        let children = node.children().iter().filter(|child| nodes.get(child).is_some_and(is_shown));
        let below: Vec<Element> = children.filter_map(|child| self.node(document, nodes, *child)).collect();
        let face = Face::of(node, !below.is_empty());
        let mut kept = self.shown.remove(&id);
        if let Some(other) = kept.take_if(|k| k.face.tag != face.tag) {
            other.element.remove();
        }
        let element = match &kept {
            Some(shown) => shown.element.clone(),
            None => {
                let made = document.create_element(face.tag).ok()?;
                made.set_attribute(NODE, &id.0.to_string()).ok()?;
                made
            }
        };
        face.apply(&element, kept.as_ref().map(|k| &k.face));
        place(&element, &below);
        self.shown.insert(id, Shown { element: element.clone(), face });
        Some(element)
    }

    /// Asks egui for what was done to an element: pressed, or given another value. Whether there is anything to ask.
    fn ask(&mut self, pressed: bool, target: &Element) -> bool {
        let Some(element) = target.closest(&format!("[{NODE}]")).ok().flatten() else { return false };
        let Some(id) = element.get_attribute(NODE).and_then(|id| id.parse().ok()).map(NodeId) else { return false };
        let Some(shown) = self.shown.get(&id) else { return false };
        let (action, data) = match (pressed, shown.face.is_field()) {
            (true, false) => (Action::Click, None),
            (false, true) => match value(&element, shown.face.is_number()) {
                Some(value) => (Action::SetValue, Some(value)),
                None => return false,
            },
            _ => return false,
        };
        self.asked.push(ActionRequest { action, target_tree: TreeId::ROOT, target_node: id, data });
        true
    }
}

/// Makes these the elements in another one. What is in its place is not touched: it may have the focus.
fn place(within: &Element, children: &[Element]) {
    let mut at = within.first_element_child();
    for child in children {
        if at.as_ref() == Some(child) {
            at = child.next_element_sibling();
        } else {
            // Both are the page's own.
            let _ = within.insert_before(child, at.as_ref().map(AsRef::as_ref));
        }
    }
}

/// What was written into a field.
fn value(element: &Element, number: bool) -> Option<ActionData> {
    let field = element.dyn_ref::<HtmlInputElement>().map(HtmlInputElement::value);
    let text = field.or_else(|| element.dyn_ref::<HtmlTextAreaElement>().map(HtmlTextAreaElement::value))?;
    if number { text.parse().ok().map(ActionData::NumericValue) } else { Some(ActionData::Value(text.into())) }
}
