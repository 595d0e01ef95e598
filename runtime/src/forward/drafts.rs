//! Drafting by the model's own module for multi-token prediction, and the verification of what was drafted.
//!
//! The module has one decoder layer. Its input at position p is made of the model's hidden state there (after the final norm) and
//! the embedding of the token at p + 1; its output predicts the token at p + 2 (DeepSeek-V3 report, section 2.2):
//!
//! `x = project [norm(embed(t[p + 1])) | norm(h[p])]; z = layer(x); logits = head(norm(z))`
//!
//! Its latent cache has the row of position p where the decoder layers have theirs, so that one position and one page table serve
//! all of them, and rows that turn out to be wrong are overwritten like the others. As a row of that cache depends on the layer's
//! input alone, only the row to draft from takes the whole layer: the others are four small products.
//!
//! A step is verified first and drafts last. Its first row is the last token sampled, the rows after it are what was drafted for
//! it. Verification says how many count, the module's cache gets the rows of all (what follows the last one that counts will be
//! overwritten), then the module drafts from the last one that counts: the first token from the model's hidden state, the others
//! from its own, as engines do.

use super::{AttentionForm, Recorder, Speculation};
use crate::{
    model::MtpIds,
    plan::{Act, Kind, Op, Rows},
};

impl Recorder<'_> {
    /// Verification and drafts of a step whose last layer left `x`, with the model's `logits` of every row that may count.
    pub(super) fn speculate(&mut self, speculation: Speculation, mtp: &MtpIds, x: Act, logits: Act) {
        let Speculation { verify, draft } = speculation;
        for row in 0..=verify {
            self.op(Op::Verify { logits, row });
        }
        let inputs = self.fill(mtp, x, false);
        if draft == 0 {
            self.op(Op::Settle { drafts: 0 });
            return;
        }
        let config = &self.model.config;
        let (h, eps, vocab, index) = (config.hidden_size, config.rms_norm_eps, config.vocab_size, self.model.layers.len());
        (self.rows, self.form) = (Rows::One, AttentionForm::Absorbed);
        let mut x = self.f32("mtp_x", h);
        self.op(Op::TakenRow { x: inputs, out: x });
        self.op(Op::Settle { drafts: draft });
        let mut hidden = None;
        for i in 0..draft {
            if let Some(hidden) = hidden {
                x = self.module_input(mtp, hidden);
            }
            self.attention(index, &mtp.layer, x, i > 0);
            self.feed_forward(index, &mtp.layer, x);
            let q8 = self.takes_q8(&[mtp.head]);
            let normed = self.norm("mtp_head_normed", x, mtp.head_norm, eps, &[q8, false]);
            let logits = self.shared("draft_logits", Kind::F32, Rows::One, vocab);
            self.op(Op::MatMul { w: mtp.head, x: Self::pick(normed, q8), out: logits, add: false });
            self.op(Op::Draft { logits, index: i, of: draft });
            hidden = normed.f32;
        }
    }

    /// Appends the rows of the step to the module's latent cache; returns the inputs of its layer.
    pub(super) fn fill(&mut self, mtp: &MtpIds, x: Act, given: bool) -> Act {
        let (eps, l) = (self.model.config.rms_norm_eps, &mtp.layer);
        let hidden = self.f32("mtp_hidden", self.model.config.hidden_size);
        self.op(Op::Norm { x, weight: self.model.out_norm, eps, out: Some(hidden), q8: None });
        self.op(Op::Shift { given });
        let inputs = self.module_input(mtp, hidden);
        let q8 = self.takes_q8(&[l.kv_a]);
        let normed = self.norm("normed", inputs, l.attn_norm, eps, &[q8]);
        self.append(self.model.layers.len(), l, Self::pick(normed, q8));
        inputs
    }

    /// The layer's input, from hidden states and the step's token ids.
    fn module_input(&mut self, mtp: &MtpIds, hidden: Act) -> Act {
        let (h, eps) = (self.model.config.hidden_size, self.model.config.rms_norm_eps);
        let embedded = self.f32("mtp_embedded", h);
        self.op(Op::Embed { table: self.model.embed, out: embedded });
        let a = self.norm("mtp_embedded_normed", embedded, mtp.embed_norm, eps, &[false]);
        let b = self.norm("mtp_hidden_normed", hidden, mtp.hidden_norm, eps, &[false]);
        let joined = self.f32("mtp_joined", 2 * h);
        self.op(Op::Join { a: Self::pick(a, false), b: Self::pick(b, false), out: joined });
        let q8 = self.takes_q8(&[mtp.project]);
        let joined = self.quantised_for("mtp_joined", joined, q8);
        let x = self.f32("mtp_x", h);
        self.op(Op::MatMul { w: mtp.project, x: joined, out: x, add: false });
        x
    }
}
