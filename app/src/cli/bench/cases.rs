//! Which tests there are.

use serde::Serialize;

use super::BenchArgs;

/// What a test measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Reading a prompt.
    Prefill,
    /// Generating.
    Decode,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is measured.
    pub kind: Kind,
    /// Tokens of the prompt, or to generate.
    pub tokens: usize,
    /// Positions that the context has before.
    pub depth: usize,
}

impl Case {
    /// Positions of the context that it takes.
    pub fn positions(&self) -> usize {
        match self.kind {
            Kind::Prefill => self.tokens + 2,
            Kind::Decode => self.depth.max(1) + self.tokens + 2,
        }
    }

    /// `pp512`, `tg128`, `tg128 @ d1024`, as llama-bench calls them.
    pub fn name(&self) -> String {
        let kind = if self.kind == Kind::Prefill { "pp" } else { "tg" };
        let depth = if self.depth > 0 { format!(" @ d{}", self.depth) } else { String::new() };
        format!("{kind}{}{depth}", self.tokens)
    }
}

/// The tests that are asked for.
pub fn tests(args: &BenchArgs) -> Vec<Case> {
    let prefill = args.n_prompt.iter().map(|&tokens| Case { kind: Kind::Prefill, tokens, depth: 0 });
    let decode = args.n_gen.iter().flat_map(|&tokens| {
        let each = move |&depth: &usize| Case { kind: Kind::Decode, tokens, depth };
        args.n_depth.iter().map(each)
    });
    prefill.chain(decode).filter(|c| c.tokens > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_tests_of_decoding() {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            bench: BenchArgs,
        }
        let args = clap::Parser::parse_from(["x", "-p", "512,0", "-n", "16,8", "-d", "0,1024"]);
        let Only { bench } = args;
        let cases = tests(&bench);
        let names: Vec<String> = cases.iter().map(Case::name).collect();
        assert_eq!(names, ["pp512", "tg16", "tg16 @ d1024", "tg8", "tg8 @ d1024"]);
        assert_eq!(cases.iter().map(Case::positions).collect::<Vec<_>>(), [514, 19, 1042, 11, 1034]);
    }
}
