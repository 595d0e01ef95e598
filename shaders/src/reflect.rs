//! What a kernel wants bound, read off its WGSL by naga so that nothing is written twice.

use naga::{AddressSpace, StorageAccess};

use crate::ShaderError;

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is read and written.
    ReadWrite,
}

/// One binding of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in WGSL.
    pub name: String,
    /// The bind group.
    pub group: u32,
    /// The index inside the group.
    pub index: u32,
    /// How it is used.
    pub access: Access,
    /// The fewest bytes that may be bound: runtime-sized arrays count one element.
    pub min_size: u32,
}

/// What a kernel wants bound and how it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The bindings, in the order of their indices.
    pub bindings: Vec<Binding>,
    /// Invocations of a workgroup.
    pub workgroup_size: [u32; 3],
    /// Workgroup memory.
    pub workgroup_bytes: u32,
}

impl Interface {
    /// The binding of that name.
    pub fn binding(&self, name: &str) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.name == name)
    }

    /// Storage buffers bound.
    pub fn storage_buffers(&self) -> usize {
        self.bindings.iter().filter(|b| b.access != Access::Uniform).count()
    }
}

/// The interface of the compute entry point `main` of `source` (naga's dialect).
pub fn reflect(source: &str) -> Result<Interface, ShaderError> {
    let module = naga::front::wgsl::parse_str(source)
        .map_err(|e| ShaderError::Wgsl { message: e.emit_to_string(source).trim().to_owned() })?;
    let entry = module
        .entry_points
        .iter()
        .find(|e| e.name == "main" && e.stage == naga::ShaderStage::Compute)
        .ok_or_else(|| ShaderError::Wgsl { message: "there is no compute entry point `main`".into() })?;
    let context = module.to_ctx();
    let mut bindings = Vec::new();
    let mut workgroup_bytes = 0;
    for (_, variable) in module.global_variables.iter() {
        let size = module.types[variable.ty].inner.size(context);
        let access = match variable.space {
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::ReadWrite,
            AddressSpace::Storage { .. } => Access::Read,
            AddressSpace::WorkGroup => {
                workgroup_bytes += size.next_multiple_of(16);
                continue;
            }
            _ => continue,
        };
        let (Some(at), Some(name)) = (&variable.binding, &variable.name) else {
            return Err(ShaderError::Wgsl { message: "a resource without name or binding".into() });
        };
        bindings.push(Binding { name: name.clone(), group: at.group, index: at.binding, access, min_size: size });
    }
    bindings.sort_by_key(|b| (b.group, b.index));
    Ok(Interface { bindings, workgroup_size: entry.workgroup_size, workgroup_bytes })
}
