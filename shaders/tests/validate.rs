//! Every kernel, in every combination of defines listed, is valid and translates to what the backends take.
#![allow(clippy::unwrap_used)] // A test may fail.

use std::collections::{BTreeMap, HashSet};

use naga::{
    back::{glsl, hlsl, msl, spv},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use pleiad_shaders::{Access, Defines, Dialect, KERNELS, KernelInfo, ShaderError, Tier, reflect, source};

fn capabilities(tier: Tier) -> Capabilities {
    // unpack2x16float, which WebGPU has everywhere.
    let plain = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    match tier {
        Tier::Plain => plain,
        Tier::Subgroup => plain | Capabilities::SUBGROUP,
    }
}

fn validate(kernel: &KernelInfo, defines: &Defines) -> (String, naga::Module, ModuleInfo) {
    let text = source(kernel.name, defines, Dialect::Naga).unwrap_or_else(|e| panic!("{} {defines:?}: {e}", kernel.name));
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|e| panic!("{} {defines:?}\n{}", kernel.name, e.emit_to_string(&text)));
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(kernel.tier(defines)));
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE).subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator.validate(&module).unwrap_or_else(|e| panic!("{} {defines:?}\n{}", kernel.name, e.emit_to_string(&text)));
    (text, module, info)
}

fn every(mut check: impl FnMut(&KernelInfo, &Defines)) {
    for kernel in KERNELS {
        let variants = kernel.variants();
        assert!(!variants.is_empty());
        for defines in &variants {
            check(kernel, defines);
        }
    }
}

#[test]
fn every_variant_is_valid_within_the_default_limits_and_translates() {
    let mut count = 0;
    every(|kernel, defines| {
        let name = format!("{} {defines:?}", kernel.name);
        let (text, module, info) = validate(kernel, defines);
        let interface = reflect(&text).unwrap();
        assert!(interface.storage_buffers() <= 8, "{name}: {interface:?}");
        assert!(interface.workgroup_bytes <= 16384, "{name}: {} bytes of workgroup memory", interface.workgroup_bytes);
        let [x, y, z] = interface.workgroup_size;
        assert!(x * y * z <= 256, "{name}: {x} x {y} x {z}");
        let entry = info.get_entry_point(0);
        for (handle, variable) in module.global_variables.iter() {
            assert!(!entry[handle].is_empty(), "{name}: {:?} is not used", variable.name);
        }

        spv::write_vec(&module, &info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None)
            .unwrap_or_else(|e| panic!("{name}: SPIR-V: {e}"));
        let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
            .unwrap_or_else(|e| panic!("{name}: MSL: {e}"));
        let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_4, fake_missing_bindings: true, ..Default::default() };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
            .write(&module, &info, None)
            .unwrap_or_else(|e| panic!("{name}: HLSL: {e}"));
        count += 1;
    });
    assert!(count > 500, "only {count} variants");
}

/// GLSL ES 3.10, what OpenGL ES has at the least for compute.
fn to_glsl(module: &naga::Module, info: &ModuleInfo) -> Result<String, glsl::Error> {
    let options = glsl::Options { version: glsl::Version::new_gles(310), ..glsl::Options::default() };
    let pipeline =
        glsl::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into(), multiview: None };
    let mut text = String::new();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, naga::proc::BoundsCheckPolicies::default())?.write()?;
    Ok(text)
}

#[test]
fn every_variant_translates_to_glsl() {
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    every(|kernel, defines| {
        let (_, module, info) = validate(kernel, defines);
        let name = format!("{} {defines:?}", kernel.name);
        match to_glsl(&module, &info) {
            Ok(text) => {
                assert!(text.starts_with("#version 310 es"), "{name}");
                // Subgroups are an extension there, which few devices have.
                let subgroups = kernel.tier(defines) == Tier::Subgroup;
                assert_eq!(text.contains("GL_KHR_shader_subgroup_arithmetic : require"), subgroups, "{name}");
                count += 1;
            }
            Err(e) => refused.entry(e.to_string()).or_default().push(name),
        }
    });
    assert!(refused.is_empty(), "{refused:?}");
    assert!(count > 500, "only {count} variants");
}

#[test]
fn params_are_as_in_rust() {
    for kernel in KERNELS {
        let (_, module, _) = validate(kernel, &kernel.variants()[0]);
        let (_, params) = module.global_variables.iter().find(|(_, v)| v.name.as_deref() == Some("params")).unwrap();
        assert_eq!(params.space, naga::AddressSpace::Uniform);
        let naga::TypeInner::Struct { members, span } = &module.types[params.ty].inner else { panic!("{}", kernel.name) };
        // Rust pads with arrays where WGSL has single words; `embed` calls its width cols, for the formats.
        let name = |n: &str| if n == "width" && kernel.name == "embed" { "cols".to_owned() } else { n.to_owned() };
        let rust: Vec<_> = kernel.params.iter().filter(|f| !f.0.starts_with("pad")).map(|f| (name(f.0), f.1, f.2)).collect();
        let wgsl: Vec<_> = members
            .iter()
            .filter(|m| !m.name.as_deref().unwrap_or("").starts_with("pad"))
            .map(|m| {
                let ty = match module.types[m.ty].inner {
                    naga::TypeInner::Scalar(naga::Scalar::U32) => "u32",
                    naga::TypeInner::Scalar(naga::Scalar::F32) => "f32",
                    ref other => panic!("{}: {other:?}", kernel.name),
                };
                (m.name.clone().unwrap(), ty, m.offset as usize)
            })
            .collect();
        assert_eq!(rust, wgsl, "{}", kernel.name);
        assert_eq!(span % 16, 0, "{}", kernel.name);
    }
}

#[test]
fn bindings_are_found_by_name() {
    let defines = Defines::new().set("FORMAT", "q4_k").flag("ACT_Q8").flag("GATED").set("GATE_FORMAT", "q4_k").set("TN", 32);
    let interface = reflect(&source("matmat", &defines, Dialect::Naga).unwrap()).unwrap();
    let access: Vec<_> = interface.bindings.iter().map(|b| (b.name.as_str(), b.group, b.access)).collect();
    let expected = [
        ("params", Access::Uniform),
        ("step", Access::Read),
        ("x", Access::Read),
        ("w", Access::Read),
        ("gate", Access::Read),
        ("out", Access::ReadWrite),
    ];
    assert_eq!(access, expected.map(|(name, access)| (name, 0, access)));
    assert_eq!(interface.binding("params").unwrap().min_size, 64);
    assert_eq!(interface.workgroup_size, [128, 1, 1]);
    assert!(interface.binding("none").is_none());
}

#[test]
fn browsers_get_their_header_only_where_it_is_needed() {
    every(|kernel, defines| {
        let text = source(kernel.name, defines, Dialect::Browser).unwrap();
        let subgroups = kernel.tier(defines) == Tier::Subgroup;
        assert_eq!(text.starts_with("enable subgroups;"), subgroups);
        assert_eq!(text.contains("subgroupAdd"), subgroups);
    });
}

#[test]
fn names_are_unique_and_described() {
    let mut names = HashSet::new();
    for kernel in KERNELS {
        assert!(names.insert(kernel.name) && !kernel.what.is_empty());
    }
}

#[test]
fn nonsense_is_refused() {
    let q4 = || Defines::new().set("FORMAT", "q4_0").set("TN", 32);
    for (kernel, defines, message) in [
        ("none", Defines::new(), "there is no kernel `none`"),
        ("swiglu", Defines::new().flag("FAST"), "kernel `swiglu` has no define FAST=1"),
        ("matmat", q4().set("TN", 48), "kernel `matmat` has no define TN=48"),
        ("matmat", q4().set("FORMAT", "q9"), "kernel `matmat` has no define FORMAT=q9"),
        ("matmat", q4().flag("GATED"), "kernel `matmat` has no define GATE_FORMAT=(nothing)"),
        ("matmat", q4().flag("GATED").set("GATE_FORMAT", "f16"), "kernel `matmat` has no define GATE_FORMAT=f16"),
        ("matmat", q4().set("FORMAT", "f16").flag("ACT_Q8"), "kernel `matmat` has no define ACT_Q8=1"),
        ("matmat", Defines::new().set("TN", 32), "kernel `matmat` has no define FORMAT=(nothing)"),
        ("norm", Defines::new(), "kernel `norm` has no define OUT_F32=(nothing)"),
    ] {
        let error: ShaderError = source(kernel, &defines, Dialect::Naga).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn reflection_tells_what_naga_says() {
    let error = reflect("fn main() { let x = ; }").unwrap_err();
    assert!(error.to_string().contains("expected expression"), "{error}");
    assert!(reflect("fn main() {}").unwrap_err().to_string().contains("no compute entry point"));
}
