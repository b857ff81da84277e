//! `wasmhost run`: a formation is served, and an app is left to `app`.

use tracing::info;
use wasmhost_host::GrantedBy;

use crate::app;
use crate::args::AppFlags;
use crate::check::plan;
use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::host_log;
use crate::serve::serve;

pub(crate) fn run(file: FormationFile, app: AppFlags) -> Outcome {
    if app::is_app(file.path()) {
        return app::run(file.path(), app);
    }
    if let Some(flag) = app.first() {
        let shown = file.path().display();
        return Err(Failed::new(
            Exit::Usage,
            format!("{flag} is for an app (a .wasm file), and {shown} is a formation: write it there"),
        ));
    }
    host_log::with(|output| {
        if file.is_named_by_variable() {
            info!("running {}, which the environment variable WASMHOST_FILE names", file.path().display());
        }
        serve(plan(&file)?, GrantedBy::Formation, output, None)
    })
}
