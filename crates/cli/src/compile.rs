//! `wasmhost compile`

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use wasmhost_config::{CompileLimits, read_file, units};
use wasmhost_engine::{CompiledFile, FILE_BYTES_MAX, binary_of, inspect};

use crate::args::Compile;
use crate::cache::compiler;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

pub(crate) fn compile(compile: &Compile) -> Outcome {
    let component = &compile.component;
    let output = compile.output.clone().unwrap_or_else(|| component.with_extension("cwasm"));
    if output == *component {
        let message = format!("{} would be replaced: name another file with -o", component.display());
        return Err(Failed::new(Exit::Usage, message));
    }
    let wasm = read(component).map_err(|message| Failed::new(Exit::Component, message))?;
    let refused =
        |err: &dyn std::fmt::Display| Failed::new(Exit::Component, format!("{} {err}", component.display()));
    let wasm = binary_of(wasm).map_err(|err| refused(&err))?;
    inspect(&wasm).map_err(|err| refused(&err))?;
    let default = CompileLimits::default();
    let limits = CompileLimits {
        memory_bytes_max: compile.memory.unwrap_or(default.memory_bytes_max),
        cpu: compile.cpu.unwrap_or(default.cpu),
    };
    let compiled = compiler()?.compile(&wasm, limits).map_err(|err| refused(&err))?;
    write(&output, &compiled)
        .map_err(|err| Failed::new(Exit::Failed, format!("can't write {}: {err}", output.display())))?;
    match compile.json {
        true => print::json(&serde_json::json!({ "file": output }))?,
        false => print::line(output.display()),
    }
    Ok(Exit::Done)
}

fn read(component: &Path) -> Result<Vec<u8>, String> {
    let shown = component.display();
    match read_file(component, FILE_BYTES_MAX) {
        Ok(Some(wasm)) => Ok(wasm),
        Ok(None) => {
            Err(format!("the component {shown} is larger than {}", units::format_size(FILE_BYTES_MAX)))
        }
        Err(err) if err.kind() == ErrorKind::NotFound => Err(format!("the component {shown} doesn't exist")),
        Err(err) => Err(format!("can't read the component {shown}: {err}")),
    }
}

/// Writes the file beside its place and renames it: a reader finds the old one or the new one, whole.
fn write(output: &Path, compiled: &CompiledFile) -> std::io::Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    compiled.write_to(file.as_file_mut())?;
    file.as_file().sync_data()?;
    file.persist(output)?;
    Ok(())
}
