//! `wasmhost compile`

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use wasmhost_config::{read_file, units};
use wasmhost_engine::FILE_BYTES_MAX;

use crate::args::Compile;
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
    let compiled = wasmhost_engine::compile(&wasm)
        .map_err(|err| Failed::new(Exit::Component, format!("{} {err}", component.display())))?;
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
fn write(output: &Path, compiled: &[u8]) -> std::io::Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    file.write_all(compiled)?;
    file.as_file().sync_data()?;
    file.persist(output)?;
    Ok(())
}
