"""Write small random checkpoints of the DeepSeek family with reference outputs.

    python make_golden.py OUT_DIR [CASE...]      (needs torch, transformers, safetensors)

Each case is a directory in the published Hugging Face layout (config.json and model.safetensors,
one matrix per expert; or shards with an index) plus golden.safetensors, computed by Hugging Face
transformers in float32 from the stored weights:

    input_ids   [T]            i64   token ids
    logits      [T, vocab]     f32
    router.N.ids      [T, k]   i64   per MoE layer N, sorted by expert id
    router.N.weights  [T, k]   f32   include normalisation and routed_scaling_factor

Where T > 200 only the last 32 rows of everything but input_ids are kept.

Before a case is written the script checks it:

- all outputs are finite;
- a second implementation of the routing, below, agrees with Hugging Face's on every token;
- every *mutant* of the case (the mistake that the case is there to catch) moves the logits by a
  normalised mean square error of at least CAUGHT, so that a test against the golden file fails;
- the smallest gap between the scores of a chosen and a refused expert (or group) exceeds MARGIN,
  so that the rounding of another float32 implementation cannot change the choice.

Afterwards transformers loads the directory as it would a published one, and must compute the same.
"""

import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

CAUGHT = 1e-3
MARGIN = 1e-4
LAST_ROWS = 32


def yarn(factor, original, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0, theta=10000.0):
    return {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": float(factor),
        "original_max_position_embeddings": original,
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "mscale": mscale,
        "mscale_all_dim": mscale_all_dim,
    }


def plain(theta):
    return {"rope_type": "default", "rope_theta": theta}


BASE = dict(
    vocab_size=256,
    hidden_size=96,
    intermediate_size=160,
    moe_intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    n_shared_experts=1,
    n_routed_experts=16,
    num_experts_per_tok=4,
    kv_lora_rank=32,
    q_lora_rank=48,
    qk_nope_head_dim=24,
    qk_rope_head_dim=16,
    v_head_dim=32,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    max_position_embeddings=2048,
    rms_norm_eps=1e-6,
    hidden_act="silu",
    tie_word_embeddings=False,
    bos_token_id=0,
    eos_token_id=1,
    rope_parameters=yarn(8, 256),
)
SMALL = dict(BASE, vocab_size=128, hidden_size=64, intermediate_size=96)
NO_GROUPS = {"n_group": 1, "topk_group": 1}


def mixed_types(name):
    """Most of the bytes in F16, the output projections in BF16, the rest (norms, gate, head, ...) in F32."""
    if any(s in name for s in ("mlp.experts.", "_proj_with_mqa", "_b_proj", "embed_tokens")):
        return torch.float16
    return torch.bfloat16 if "o_proj" in name else torch.float32


# name: (model type, configuration, options). Options:
#   T             tokens of the input
#   salt          added to the seed, chosen so that MARGIN holds
#   fp8           store the projections as float8_e4m3fn with 128x128 block scales
#   bias          mean and standard deviation of e_score_correction_bias (0 and 0.1)
#   embed_std     standard deviation of the embedding (1)
#   model_type    what config.json says, where transformers has no class of that name
#   new_config    config.json with the rope_parameters object and dtype of transformers 5
#   shards, dtype number of files, and a function from tensor name to stored type
#   mutants       {label: configuration changes, or arguments of route() under the key "route"}
CASES = {
    "v3-groups": ("deepseek_v3", dict(BASE, n_routed_experts=32, n_group=4, topk_group=2), dict(T=40)),
    "v2-lite": (
        "deepseek_v2",
        dict(
            BASE,
            q_lora_rank=None,
            n_shared_experts=2,
            norm_topk_prob=False,
            routed_scaling_factor=1.0,
            topk_method="greedy",
            num_experts_per_tok=6,
            rope_parameters=yarn(40, 128, mscale=0.707, mscale_all_dim=0.707),
        ),
        dict(T=40),
    ),
    "moonlight": (
        "deepseek_v3",
        dict(
            BASE,
            q_lora_rank=None,
            n_shared_experts=2,
            num_experts_per_tok=6,
            routed_scaling_factor=2.446,
            rms_norm_eps=1e-5,
            rope_parameters=plain(50000.0),
        ),
        dict(T=40),
    ),
    "glm-flash": (
        "glm4_moe_lite",
        dict(
            BASE,
            qk_nope_head_dim=40,
            v_head_dim=48,
            num_attention_heads=5,
            num_key_value_heads=5,
            routed_scaling_factor=1.8,
            rms_norm_eps=1e-5,
            rope_parameters=plain(1000000.0),
        ),
        dict(T=40),
    ),
    "v3-fp8": (
        "deepseek_v3",
        dict(
            BASE,
            hidden_size=192,
            intermediate_size=320,
            moe_intermediate_size=160,
            n_routed_experts=6,
            num_experts_per_tok=2,
        ),
        dict(T=24, fp8=True),
    ),
    "v3-negative-bias": (
        "deepseek_v3",
        dict(SMALL, num_hidden_layers=2, n_group=4, topk_group=2),
        dict(
            T=40,
            bias=(-1.0, 0.5),
            mutants={
                "masked experts score 0, not -inf": {"route": {"mask_value": 0.0}},
                "weights taken from biased scores": {"route": {"biased_weights": True}},
                "no groups": NO_GROUPS,
            },
        ),
    ),
    "v3-no-qlora": (
        "deepseek_v3",
        dict(SMALL, q_lora_rank=None, n_group=4, topk_group=2),
        dict(
            T=40,
            mutants={
                "no groups": NO_GROUPS,
                "group score is its maximum": {"route": {"group_score": "max"}},
                "no YaRN": {"rope_parameters": plain(10000.0)},
            },
        ),
    ),
    "v3-tied": (
        "deepseek_v3",
        dict(SMALL, num_hidden_layers=2, moe_intermediate_size=16, tie_word_embeddings=True),
        dict(T=40, embed_std=0.125, mutants={"no routing scale": {"routed_scaling_factor": 1.0}}),
    ),
    "v3-long": (
        "deepseek_v3",
        dict(SMALL, num_hidden_layers=2, n_group=4, topk_group=2, max_position_embeddings=512, rope_parameters=yarn(8, 64)),
        dict(
            T=300,
            mutants={
                "no YaRN": {"rope_parameters": plain(10000.0)},
                "softmax scale without mscale": {"rope_parameters": yarn(8, 64, mscale=1e-9, mscale_all_dim=1e-9)},
                "no frequency divided": {"rope_parameters": yarn(8, 64, beta_fast=1e9, beta_slow=1e9)},
                "every frequency divided": {"rope_parameters": yarn(8, 64, beta_fast=1e-9, beta_slow=1e-9)},
                "half-split pairs": {"rope_interleave": False},
            },
        ),
    ),
    "v3-256experts": (
        "deepseek_v3",
        dict(
            SMALL,
            hidden_size=32,
            num_hidden_layers=2,
            moe_intermediate_size=16,
            n_routed_experts=256,
            n_group=8,
            topk_group=4,
            num_experts_per_tok=8,
        ),
        dict(
            T=24,
            salt=3,
            mutants={
                "no groups": NO_GROUPS,
                "group score is its maximum": {"route": {"group_score": "max"}},
                "half as many groups kept": {"topk_group": 2},
            },
        ),
    ),
    "v2-groups": (
        "deepseek_v2",
        dict(
            SMALL,
            num_hidden_layers=2,
            moe_intermediate_size=16,
            n_shared_experts=2,
            n_routed_experts=32,
            num_experts_per_tok=6,
            n_group=4,
            topk_group=2,
            topk_method="group_limited_greedy",
            norm_topk_prob=False,
            routed_scaling_factor=16.0,
            rope_parameters=yarn(40, 128, mscale=0.707, mscale_all_dim=0.707),
        ),
        dict(
            T=40,
            salt=1,
            mutants={
                "group score is the sum of its two best": {"route": {"group_score": "top2"}},
                "no groups": {"topk_method": "greedy"},
                "weights normalised": {"route": {"normalise": True}},
                "no routing scale": {"routed_scaling_factor": 1.0},
                "mscale 1": {"rope_parameters": yarn(40, 128)},
            },
        ),
    ),
    "kimi-k2": (
        "deepseek_v3",
        dict(
            SMALL,
            num_hidden_layers=2,
            moe_intermediate_size=16,
            n_routed_experts=24,
            num_experts_per_tok=8,
            routed_scaling_factor=2.827,
            rope_parameters=yarn(32, 64, beta_fast=1.0, beta_slow=1.0, theta=50000.0),
        ),
        dict(
            T=48,
            model_type="kimi_k2",
            mutants={
                "beta_fast 32": {"rope_parameters": yarn(32, 64, theta=50000.0)},
                "theta 10000": {"rope_parameters": yarn(32, 64, beta_fast=1.0, beta_slow=1.0)},
                "no YaRN": {"rope_parameters": plain(50000.0)},
            },
        ),
    ),
    "yarn-corners": (
        "deepseek_v3",
        dict(
            SMALL,
            num_hidden_layers=2,
            moe_intermediate_size=16,
            rope_parameters=yarn(8, 6, beta_fast=1, beta_slow=1, mscale=1.0, mscale_all_dim=0.5),
        ),
        dict(
            T=40,
            mutants={
                "no frequency divided": {
                    "rope_parameters": yarn(8, 6, beta_fast=1e9, beta_slow=1e9, mscale_all_dim=0.5)
                },
                "every frequency divided": {
                    "rope_parameters": yarn(8, 6, beta_fast=1e-9, beta_slow=1e-9, mscale_all_dim=0.5)
                },
                "cos and sin not scaled": {
                    "rope_parameters": yarn(8, 6, beta_fast=1, beta_slow=1, mscale=0.5, mscale_all_dim=0.5)
                },
                "softmax scale from mscale": {"rope_parameters": yarn(8, 6, beta_fast=1, beta_slow=1)},
            },
        ),
    ),
    "rope-parameters": (
        "glm4_moe_lite",
        dict(
            SMALL,
            moe_intermediate_size=16,
            intermediate_size=64,
            n_routed_experts=8,
            qk_nope_head_dim=40,
            v_head_dim=48,
            num_attention_heads=5,
            num_key_value_heads=5,
            routed_scaling_factor=1.8,
            rms_norm_eps=1e-5,
            mlp_layer_types=["sparse", "dense", "sparse"],
            rope_parameters=plain(1000000.0),
        ),
        dict(T=40, salt=1, new_config=True, mutants={"theta 10000": {"rope_parameters": plain(10000.0)}}),
    ),
    "v3-half-rope": (
        "deepseek_v3",
        dict(SMALL, num_hidden_layers=2, moe_intermediate_size=16, rope_interleave=False),
        dict(T=40, mutants={"interleaved pairs": {"rope_interleave": True}}),
    ),
    "v3-sharded": (
        "deepseek_v3",
        dict(SMALL, num_hidden_layers=2, n_group=4, topk_group=2),
        dict(
            T=40,
            shards=3,
            dtype=mixed_types,
            mutants={"no groups": NO_GROUPS},
        ),
    ),
}


def fp8_blocks(w, block=128):
    """Quantise to float8_e4m3fn with one f32 scale per 128x128 block; (fp8, scale_inv, dequantised)."""
    o, i = w.shape
    s = torch.empty((o + block - 1) // block, (i + block - 1) // block)
    q = torch.empty_like(w)
    for a in range(s.shape[0]):
        for b in range(s.shape[1]):
            at = (slice(a * block, (a + 1) * block), slice(b * block, (b + 1) * block))
            s[a, b] = w[at].abs().max().clamp(min=1e-12) / 448.0
            q[at] = w[at] / s[a, b]
    f = q.to(torch.float8_e4m3fn)
    return f, s, f.float() * s.repeat_interleave(block, 0)[:o].repeat_interleave(block, 1)[:, :i]


def route(gate, x, kw, sigmoid, margins=None, *, group_score=None, mask_value=float("-inf"), biased_weights=False, normalise=None):
    """The family's routing, written a second time: (ids, weights) of tokens x, sorted by id.

    The keyword arguments bend it into known mistakes; `margins` collects the gaps between the last
    chosen and the first refused candidate.
    """
    logits = x.float() @ gate.weight.float().T
    scores = logits.sigmoid() if sigmoid else logits.softmax(-1)
    biased = scores + gate.e_score_correction_bias if sigmoid else scores
    choice, k = biased, kw["num_experts_per_tok"]

    def top(t, n):
        v = t.sort(-1, descending=True).values
        if margins is not None and n < t.shape[-1]:
            gap = v[:, n - 1] - v[:, n]
            margins.append(gap[gap.isfinite()].min().item())
        return t.topk(n, -1).indices

    if kw["n_group"] > 1 and kw.get("topk_method") != "greedy":
        groups = biased.view(len(x), kw["n_group"], -1)
        by_maximum = (group_score or ("top2" if sigmoid else "max")) == "max"
        value = groups.amax(-1) if by_maximum else groups.topk(2, -1).values.sum(-1)
        keep = torch.zeros_like(value).scatter_(1, top(value, kw["topk_group"]), 1.0).bool()
        choice = groups.masked_fill(~keep[..., None], mask_value).reshape(len(x), -1)
    ids = top(choice, k).sort(-1).values
    w = (biased if biased_weights else scores).gather(1, ids)
    if kw["norm_topk_prob"] if normalise is None else normalise:
        w = w / (w.sum(-1, keepdim=True) + 1e-20)
    return ids, w * kw["routed_scaling_factor"]


def gates(model):
    return {i: layer.mlp for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "experts")}


def build(kind, kw):
    c = AutoConfig.for_model(kind, **kw)
    c._attn_implementation = "eager"
    c._experts_implementation = "eager"
    return AutoModelForCausalLM.from_config(c).float().eval()


def run(model, ids):
    """Logits [T, V], {layer: (ids, weights)}, {layer: router input}."""
    routed, inputs, hooks = {}, {}, []
    for i, mlp in gates(model).items():

        def grab(_m, args, kwargs, i=i):
            a = list(args) + list(kwargs.values())
            order = a[1].argsort(-1)
            inputs[i], routed[i] = a[0], (a[1].gather(-1, order), a[2].gather(-1, order))

        hooks.append(mlp.experts.register_forward_pre_hook(grab, with_kwargs=True))
    with torch.no_grad():
        o = model(input_ids=ids)
    for h in hooks:
        h.remove()
    return o.logits[0].float(), routed, inputs


def mutant_logits(kind, kw, change, model, ids):
    """Logits and routing of the same weights under a changed configuration or a bent routing."""
    change = dict(change)
    bend = change.pop("route", None)
    other = build(kind, dict(kw, **change))
    other.load_state_dict(model.state_dict())
    if bend:
        for mlp in gates(other).values():
            gate = mlp.gate

            def forward(x, gate=gate):
                x = x.view(-1, x.shape[-1])
                i, w = route(gate, x, kw, kind != "deepseek_v2", **bend)
                return None, w, i

            gate.forward = forward
    logits, routed, _ = run(other, ids)
    return logits, routed


def published_layout(model, tied):
    """{name: tensor}, one matrix per expert; the tensors are views of the model's own."""
    t = {}
    for n, v in model.state_dict().items():
        if n == "lm_head.weight" and tied:
            continue
        if n.endswith("mlp.experts.gate_up_proj"):
            for e in range(v.shape[0]):
                gate, up = v[e].chunk(2, 0)
                t[n.replace("gate_up_proj", f"{e}.gate_proj.weight")] = gate
                t[n.replace("gate_up_proj", f"{e}.up_proj.weight")] = up
        elif n.endswith("mlp.experts.down_proj"):
            for e in range(v.shape[0]):
                t[n.replace("down_proj", f"{e}.down_proj.weight")] = v[e]
        else:
            t[n] = v
    return t


def stored(tensors, opt):
    """The tensors as stored. Where rounding changes one, the model's own is changed with it."""
    new = {}
    for n, v in tensors.items():
        if n.endswith("correction_bias"):
            new[n] = v.float()
        elif opt.get("fp8") and v.dim() == 2 and "proj" in n:
            new[n], new[n.replace(".weight", ".weight_scale_inv")], back = fp8_blocks(v)
            v.copy_(back)
        else:
            new[n] = v.to(opt["dtype"](n) if "dtype" in opt else torch.bfloat16)
            v.copy_(new[n].float())
    return {n: v.detach().contiguous().clone() for n, v in new.items()}


def write_weights(tensors, directory, shards):
    meta = {"format": "pt"}
    if shards == 1:
        save_file(tensors, f"{directory}/model.safetensors", metadata=meta)
        return
    total = sum(v.nbytes for v in tensors.values())
    parts, seen = [{} for _ in range(shards)], 0
    for n, v in tensors.items():
        parts[min(seen * shards // total, shards - 1)][n] = v
        seen += v.nbytes
    index = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file(part, f"{directory}/{file}", metadata=meta)
        index |= {n: file for n in part}
    with open(f"{directory}/model.safetensors.index.json", "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, f, indent=1)


def config_json(kind, kw, opt, architecture):
    cfg = {k: v for k, v in kw.items() if k != "rope_parameters"}
    rope = dict(kw["rope_parameters"])
    names = {"architectures": [architecture], "model_type": opt.get("model_type", kind)}
    if opt.get("new_config"):
        del cfg["first_k_dense_replace"]
        cfg |= {"rope_parameters": rope, **names, "dtype": "bfloat16"}
    else:
        cfg["rope_theta"] = rope.pop("rope_theta")
        rope_type = rope.pop("rope_type")
        cfg["rope_scaling"] = None if rope_type == "default" else {"type": rope_type, **rope}
        cfg |= {**names, "torch_dtype": "bfloat16", "moe_layer_freq": 1}
    cfg["attention_bias"] = False
    if kind == "deepseek_v2":
        cfg["scoring_func"] = "softmax"
    else:
        cfg |= {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}
    if opt.get("fp8"):
        cfg["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "weight_block_size": [128, 128],
            "activation_scheme": "dynamic",
        }
    return cfg


def initialise(model, kw, opt):
    """Weights of a size that keeps activations near one; the order of the draws is part of the format."""
    with torch.no_grad():
        for _, p in model.named_parameters():
            if p.dim() >= 2:
                p.normal_(0, 1.2 / p.shape[-1] ** 0.5)
            else:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            if "dtype" not in opt:
                p.copy_(p.to(torch.bfloat16).float())
        e = model.model.embed_tokens.weight
        e.copy_((opt.get("embed_std", 1.0) * torch.randn_like(e)).to(torch.bfloat16).float())
        if kw["tie_word_embeddings"]:
            model.tie_weights()
            assert model.lm_head.weight.data_ptr() == e.data_ptr()
        mean, std = opt.get("bias", (0.0, 0.1))
        for n, b in model.named_buffers():
            if n.endswith("e_score_correction_bias"):
                b.copy_(mean + std * torch.randn_like(b))


def reloaded(directory, kind, ids):
    """Logits of the checkpoint read back from its directory."""
    with open(f"{directory}/config.json") as f:
        values = json.load(f)
    del values["model_type"]
    c = AutoConfig.for_model(kind, **values)
    model = AutoModelForCausalLM.from_pretrained(
        directory, config=c, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return run(model.eval(), ids)[0]


def make(out, name):
    kind, kw, opt = CASES[name]
    torch.manual_seed(sum(map(ord, name)) + opt.get("salt", 0))
    model = build(kind, kw)
    initialise(model, kw, opt)
    with torch.no_grad():
        tensors = stored(published_layout(model, kw["tie_word_embeddings"]), opt)
    ids = torch.randint(0, kw["vocab_size"], (1, opt["T"]))
    logits, routed, inputs = run(model, ids)
    assert logits.isfinite().all()

    # the second routing agrees, and no choice is close
    margins = []
    for i, mlp in gates(model).items():
        route_kw = dict(kw, norm_topk_prob=False) if kind == "deepseek_v2" else kw
        again, weights = route(mlp.gate, inputs[i], route_kw, kind != "deepseek_v2", margins)
        assert torch.equal(again, routed[i][0]), f"{name}: routing of layer {i}"
        torch.testing.assert_close(weights, routed[i][1], rtol=1e-5, atol=1e-6)
    print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, logits std {logits.std():.2f}, margin {min(margins):.1e}")
    failed = "mutants" in opt and min(margins) < MARGIN

    # the mistakes it is to catch
    rows = slice(-LAST_ROWS, None) if opt["T"] > 200 else slice(None)
    for label, change in opt.get("mutants", {}).items():
        other, other_routed = mutant_logits(kind, kw, change, model, ids)
        nmse = ((other - logits)[rows].square().mean() / logits[rows].square().mean()).item()
        moved = sum((other_routed[i][0] != routed[i][0]).any(-1)[rows].sum().item() for i in routed)
        print(f"    {label}: NMSE {nmse:.2g}, other experts for {moved} of {len(routed) * len(logits[rows])} tokens")
        failed |= not nmse > CAUGHT
    if failed:
        sys.exit(f"{name}: not written; try another salt")

    directory = f"{out}/{name}"
    os.makedirs(directory, exist_ok=True)
    write_weights(tensors, directory, opt.get("shards", 1))
    with open(f"{directory}/config.json", "w") as f:
        json.dump(config_json(kind, kw, opt, type(model).__name__), f, indent=1)
    g = {"input_ids": ids[0], "logits": logits[rows]}
    for i, (chosen, weights) in routed.items():
        g[f"router.{i}.ids"], g[f"router.{i}.weights"] = chosen[rows].to(torch.int64), weights[rows].float()
    made_with = {"made_with": f"transformers {transformers.__version__}"}
    save_file({k: v.contiguous().clone() for k, v in g.items()}, f"{directory}/golden.safetensors", metadata=made_with)
    if not opt.get("fp8"):  # which transformers computes on a GPU only
        torch.testing.assert_close(reloaded(directory, kind, ids), logits, rtol=0, atol=1e-5)


def main():
    out, names = sys.argv[1], sys.argv[2:] or list(CASES)
    for name in names:
        make(out, name)


if __name__ == "__main__":
    main()
