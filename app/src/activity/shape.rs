//! Layers and experts of a model.

use pleiad_models::Config;

/// A layer of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// One MLP for all tokens.
    Dense,
    /// Experts: row `n` of every field.
    Mixture(usize),
}

/// Layers and experts of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The model's name.
    pub model: String,
    /// What each layer of the model is, first to last.
    pub layers: Vec<LayerKind>,
    /// The model's layer of each mixture layer.
    pub rows: Vec<usize>,
    /// Routed experts of a mixture layer: columns of every field.
    pub experts: usize,
    /// Experts chosen for a token in each mixture layer.
    pub top_k: usize,
    /// Groups of experts; 1: none.
    pub groups: usize,
    /// Groups that a token may choose from.
    pub top_k_groups: usize,
    /// Shared experts, which every token uses.
    pub shared: usize,
}

impl Shape {
    /// The shape of a model; `None`: it has no experts.
    pub fn of(config: &Config, name: &str) -> Option<Self> {
        let moe = config.moe.as_ref()?;
        let mut rows = Vec::new();
        let layers = (0..config.num_layers)
            .map(|layer| {
                if !config.is_moe(layer) {
                    return LayerKind::Dense;
                }
                rows.push(layer);
                LayerKind::Mixture(rows.len() - 1)
            })
            .collect();
        Some(Self {
            model: name.to_owned(),
            layers,
            rows,
            experts: moe.num_experts,
            top_k: moe.top_k,
            groups: moe.num_groups.max(1),
            top_k_groups: moe.top_k_groups.max(1),
            shared: moe.num_shared,
        })
    }

    /// Cells of a field: mixture layers times experts.
    pub fn cells(&self) -> usize {
        self.rows.len() * self.experts
    }

    /// The row of a layer of the model; `None`: it is dense.
    pub fn row_of(&self, layer: usize) -> Option<usize> {
        match self.layers.get(layer) {
            Some(LayerKind::Mixture(row)) => Some(*row),
            _ => None,
        }
    }

    /// The group of an expert.
    pub fn group_of(&self, expert: usize) -> usize {
        expert * self.groups / self.experts.max(1)
    }
}
