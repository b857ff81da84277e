use super::*;
use std::os::unix::fs::symlink;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("wasmhost-state-{name}-{}", fastrand::u64(..)));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn take(&self, file: &str) -> Result<StateDir, StateDirError> {
        StateDir::take(&self.0.join("state"), &self.file(file))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn folders_above_it_that_are_missing_are_made_as_private() {
    let folder = Folder::new("above");
    let path = folder.file("a/b/state");
    let _dir = StateDir::take(&path, &folder.file("formation.toml")).unwrap();
    assert_eq!((mode(&folder.file("a")), mode(&folder.file("a/b")), mode(&path)), (0o700, 0o700, 0o700));
}

#[test]
fn others_who_can_write_there_are_an_error_and_others_who_can_read_are_not() {
    let folder = Folder::new("writable");
    fs::create_dir(folder.file("state")).unwrap();
    for refused in [0o777, 0o775, 0o707, 0o1777] {
        fs::set_permissions(folder.file("state"), Permissions::from_mode(refused)).unwrap();
        let err = folder.take("formation.toml").err().unwrap().to_string();
        assert!(err.contains(&format!("mode {refused:03o}")) && err.contains("/state"), "{err}");
    }
    fs::set_permissions(folder.file("state"), Permissions::from_mode(0o755)).unwrap();
    assert!(folder.take("formation.toml").is_ok());
}

#[test]
fn no_link_is_followed() {
    let folder = Folder::new("link");
    fs::create_dir(folder.file("elsewhere")).unwrap();
    symlink("elsewhere", folder.file("state")).unwrap();
    assert!(
        matches!(folder.take("formation.toml"), Err(StateDirError::Link(path)) if path.ends_with("state"))
    );
    fs::remove_file(folder.file("state")).unwrap();
    symlink("nowhere", folder.file("state")).unwrap();
    assert!(matches!(folder.take("formation.toml"), Err(StateDirError::Link(_))));
    fs::remove_file(folder.file("state")).unwrap();

    fs::create_dir(folder.file("state")).unwrap();
    fs::set_permissions(folder.file("state"), Permissions::from_mode(0o700)).unwrap();
    fs::write(folder.file("precious"), "text").unwrap();
    symlink("../precious", folder.file("state/lock")).unwrap();
    assert!(
        matches!(folder.take("formation.toml"), Err(StateDirError::Link(path)) if path.ends_with("lock"))
    );
    assert!(!is_in_use(&folder.file("state")));
    assert_eq!(fs::read_to_string(folder.file("precious")).unwrap(), "text");
}

#[tokio::test]
async fn a_directory_has_one_host_and_says_of_which_formation() {
    let folder = Folder::new("one");
    let (ours, other) = (folder.file("formation.toml"), folder.file("many.toml"));
    fs::write(&ours, "").unwrap();
    symlink("formation.toml", folder.file("link.toml")).unwrap();
    let state = folder.file("state");
    assert_eq!(holder(&state, &ours), Holder::Nobody);
    let dir = folder.take("formation.toml").unwrap();
    let _listener = dir.listen().unwrap();
    assert_eq!(holder(&state, &ours), Holder::This);
    assert_eq!(holder(&state, &folder.file("link.toml")), Holder::This);
    assert_eq!(holder(&state, &other), Holder::Other(ours.clone()));
    assert!(matches!(folder.take("formation.toml"), Err(StateDirError::InUse { .. })));
    let refused = folder.take("many.toml").err().unwrap().to_string();
    assert!(refused.contains("/formation.toml") && refused.contains("/many.toml"), "{refused}");
    drop(dir);
    assert_eq!(holder(&state, &ours), Holder::Nobody);
    assert!(!is_in_use(&state));
}

#[test]
fn a_host_waits_for_one_who_has_borrowed_the_directory() {
    let folder = Folder::new("borrowed");
    fs::write(folder.file("formation.toml"), "").unwrap();
    let dir = folder.take("formation.toml").unwrap();
    let borrow = |file: &str| StateDir::borrow(&folder.file("state"), &folder.file(file));
    assert!(matches!(borrow("formation.toml"), Err(StateDirError::InUse { .. })));
    drop(dir);
    assert!(matches!(borrow("many.toml"), Err(StateDirError::OfOtherFormation { .. })));
    let borrowed = borrow("formation.toml").unwrap();
    assert!(matches!(borrow("formation.toml"), Err(StateDirError::InUse { .. })));
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| folder.take("formation.toml").map(drop));
        drop(borrowed);
        taking.join().unwrap().unwrap();
    });
}

#[test]
fn a_directory_is_kept_for_the_formation_that_used_it_until_its_file_is_gone() {
    let folder = Folder::new("after");
    let ours = folder.file("formation.toml");
    fs::write(&ours, "").unwrap();
    fs::write(folder.file("many.toml"), "").unwrap();
    drop(folder.take("formation.toml").unwrap());
    let refused = folder.take("many.toml").err().unwrap().to_string();
    let parts = ["/state holds", "of /", "/formation.toml, and this is", "/many.toml: give"];
    assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    // A refusal leaves it as it was.
    assert!(matches!(folder.take("many.toml"), Err(StateDirError::OfOtherFormation { .. })));
    drop(folder.take("formation.toml").unwrap());
    fs::rename(&ours, folder.file("renamed.toml")).unwrap();
    drop(folder.take("renamed.toml").unwrap());
    fs::remove_file(folder.file("renamed.toml")).unwrap();
    drop(folder.take("many.toml").unwrap());
    assert!(folder.take("formation.toml").is_err(), "it is the other's by now");
}

#[test]
fn a_procfile_and_its_import_are_one_formation_and_so_is_a_copied_folder() {
    let folder = Folder::new("import");
    for file in ["Procfile", "formation.toml", "sub/formation.toml"] {
        fs::create_dir_all(folder.file(file).parent().unwrap()).unwrap();
        fs::write(folder.file(file), "").unwrap();
    }
    for file in ["Procfile", "formation.toml", "Procfile"] {
        drop(folder.take(file).unwrap());
    }
    assert!(folder.take("sub/formation.toml").is_err(), "it lies elsewhere");
    fs::create_dir(folder.file("sub/state")).unwrap();
    fs::set_permissions(folder.file("sub/state"), Permissions::from_mode(0o700)).unwrap();
    fs::copy(folder.file("state/lock"), folder.file("sub/state/lock")).unwrap();
    let copy = || StateDir::take(&folder.file("sub/state"), &folder.file("sub/formation.toml"));
    drop(copy().unwrap());
    drop(copy().unwrap());
}
