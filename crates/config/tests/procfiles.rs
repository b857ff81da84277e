//! Procfiles: what is read from them, what is refused and how, and that the formation which is written for one, or the
//! Procfile which is written for a formation, says the same.

use proptest::prelude::*;
use std::ffi::OsString;
use std::path::Path;
use wasmhost_config::*;

fn read_with(
    text: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
    dotenv: Option<&str>,
) -> Result<Formation, LoadError> {
    let origin = Origin { file: Path::new("Procfile"), folder: Path::new("/srv/shop"), environment, dotenv };
    parse(text, &origin)
}

fn read(text: &str) -> Formation {
    read_with(text, &|_| None, None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn args(command: &str) -> Vec<String> {
    let environment = |name: &str| (name == "SET").then(|| OsString::from("a  b"));
    let formation = read_with(&format!("web: web.wasm {command}"), &environment, None);
    formation.unwrap_or_else(|error| panic!("{error}\n{command}")).processes[0].args.clone()
}

/// The problems of a Procfile, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let error = read_with(text, &|_| None, None).expect_err(text);
    let LoadError::Invalid(problems) = error else { panic!("{error}") };
    problems.iter().map(|problem| problem.to_string().replacen("Procfile:", "", 1)).collect()
}

#[test]
fn three_lines_are_three_types() {
    let text = "\u{feff}# the shop\r\n\r\nweb: web.wasm --verbose\r\n  worker: LOG=debug bin/worker.wasm # mails\nrelease: tools.wasm migrate\n";
    let formation = read_with(text, &|_| None, Some("KEY=s3cret\nLOG=info\nWASMHOST_TYPE=x\n")).unwrap();
    assert_eq!(formation.file, Path::new("/srv/shop/Procfile"));
    assert_eq!(formation.state_dir, Path::new("/srv/shop/.wasmhost"), "that of the formation.toml");
    assert_eq!(formation.http.listen, [Listen::Tcp("127.0.0.1:8080".into())]);
    let [web, worker, release] = formation.processes.as_slice() else { panic!("{formation:?}") };
    assert_eq!((web.name.as_str(), web.component.as_path()), ("web", Path::new("/srv/shop/web.wasm")));
    assert_eq!(
        (web.args.as_slice(), web.count, &web.trigger),
        (["--verbose".to_owned()].as_slice(), 1, &None)
    );
    assert_eq!(worker.component, Path::new("/srv/shop/bin/worker.wasm"));
    assert_eq!(
        (release.args.as_slice(), &release.trigger),
        (["migrate".to_owned()].as_slice(), &Some(Trigger::Command { run: Run::Release }))
    );
    let env = |process: &ProcessType| -> Vec<(String, String, bool)> {
        let variables = process.grants.env.iter();
        variables.map(|v| (v.name.clone(), v.value.clone(), v.secret)).collect()
    };
    let key = ("KEY".to_owned(), "s3cret".to_owned(), true);
    assert_eq!(env(web), [key.clone(), ("LOG".into(), "info".into(), true)]);
    assert_eq!(env(worker), [key, ("LOG".into(), "debug".into(), false)]);
    assert!(!formation.to_toml().contains("s3cret"));
}

#[test]
fn a_text_is_restored_as_what_it_is_whatever_the_file_has_become() {
    let restored = |file: &str, text: &str| {
        let source = Source { text: text.to_owned(), dotenv: Some("SET=x\n".to_owned()) };
        let formation = restore(Path::new(file), &source).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let name = formation.file.file_name().unwrap().to_str().unwrap().to_owned();
        (name, formation.processes[0].component.clone(), formation.source == source)
    };
    let is = |name: &str| (name.to_owned(), "/srv/shop/a:b.wasm".into(), true);
    for text in ["web: a:b.wasm", "\u{feff}# [process.web]\r\n\n \tweb : X=1 a:b.wasm $SET=\n"] {
        assert_eq!(restored("/srv/shop/Procfile.dev", text), is("Procfile.dev"));
        assert_eq!(restored("/srv/shop/shop.toml", text), is("Procfile"));
    }
    for text in [
        "# web: a:b.wasm\n[process.web]\ncomponent = \"a:b.wasm\"",
        "\"process\".web.component = 'a:b.wasm' # web: a",
        "process = { web = { component = \"a:b.wasm\" } }",
    ] {
        assert_eq!(restored("/srv/shop/shop.toml", text), is("shop.toml"));
        assert_eq!(restored("/srv/shop/Procfile", text), is("formation.toml"));
    }
}

#[test]
fn words_are_those_of_a_shell() {
    for (command, expected) in [
        ("", &[][..]),
        ("a b\tc", &["a", "b", "c"]),
        ("'a b' \"c d\" e\\ f", &["a b", "c d", "e f"]),
        ("a'b'\"c\"d", &["abcd"]),
        ("'' \"\"", &["", ""]),
        ("a#b # c 'd", &["a#b"]),
        (r#"'$SET \n' "\$SET \" \\ \n" \$SET \#"#, &["$SET \\n", "$SET \" \\ \\n", "$SET", "#"]),
        ("$SET ${SET} \"<$SET>\" x$SET.y", &["a  b", "a  b", "<a  b>", "xa  b.y"]),
        ("${NONE:-x y} ${SET:-z} ${NONE:-}", &["x y", "a  b", ""]),
        ("5$ '${SET}' \\${SET} '$'{SET}", &["5$", "${SET}", "${SET}", "${SET}"]),
        ("--listen=:$PORT ${PORT:-1}", &["--listen=:8080", "1"]),
        ("'*?[~|&;<>()`' \"*|\" \\* a~b a{b,c} !", &["*?[~|&;<>()`", "*|", "*", "a~b", "a{b,c}", "!"]),
        ("ä=ö KEY=value", &["ä=ö", "KEY=value"]),
    ] {
        assert_eq!(args(command), expected, "{command}");
    }
}

#[test]
fn what_only_a_shell_does_is_named() {
    for (command, found) in [
        (
            "web.wasm | tee log",
            "1:15: found \"|\", a pipe, and no shell is run; expected the component and its arguments alone",
        ),
        ("web.wasm&&b.wasm", "1:14: found \"&&\", another command after the first"),
        ("web.wasm; b.wasm", "1:14: found \";\""),
        ("web.wasm || true", "1:15: found \"||\""),
        ("web.wasm >log 2>&1", "1:15: found \">\", a file for its output"),
        ("web.wasm <input", "1:15: found \"<\""),
        ("web.wasm $(date)", "1:15: found \"$(\", the output of another command"),
        ("web.wasm \"`date`\"", "1:16: found \"`\", the output of another command"),
        ("(web.wasm)", "1:6: found \"(\", a group of commands"),
        ("web.wasm *.txt", "1:15: found \"*\", a pattern of file names"),
        ("web.wasm ~/data", "1:15: found \"~\", a folder"),
        ("web.wasm $1", "1:15: found \"$1\", which only a shell knows"),
        ("web.wasm ${A:?b}", "1:15: found \"${A:?b}\", expected \"${NAME}\" or \"${NAME:-default}\""),
        ("web.wasm ${A", "1:15: found \"${\" without its \"}\""),
        ("web.wasm 'a", "1:15: found ' without the ' that closes it"),
        ("web.wasm \"a $PORT", "1:15: found \" without the \" that closes it"),
        ("web.wasm \\", "1:15: found \"\\\" at the line's end"),
        ("web.wasm \\$$PORT", "1:17: found a variable right behind a $"),
        (
            "web.wasm $UNSET",
            "1:1: process.web.args: the environment variable UNSET is not set: set it, add it to .env",
        ),
        (
            "exec web.wasm -v",
            "1:6: found \"exec\", expected the component first, without a program that starts it: write \"web: web.wasm\"",
        ),
        ("wasmtime serve web.wasm", "1:6: found \"wasmtime\", expected the component first"),
        (
            "bundle exec puma -p $PORT",
            "1:6: found \"bundle\", expected the path of a component, which ends in .wasm",
        ),
        ("web.cwasm", "1:6: found compiled code (.cwasm), expected a component"),
        ("oci://ghcr.io/a/b:c", "1:6: \"oci://\" components are not supported yet"),
        ("http://a/web.wasm", "1:6: found \"http://a/web.wasm\", expected the path"),
        ("", "1:1: found no component, expected its path, such as \"web: web.wasm\""),
        ("KEY=value", "1:1: found no component"),
        ("WASMHOST_TYPE=x web.wasm", "1:6: the variable WASMHOST_TYPE is set by wasmhost itself"),
    ] {
        let said = problems(&format!("web: {command}"));
        assert!(said.len() == 1 && said[0].starts_with(found), "{command}: {said:#?}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = "Web_1: web.wasm\noops\nweb: a.wasm\nweb: b.wasm\n: c.wasm\nx: cd app && bundle exec y\n";
    let said = problems(text);
    assert_eq!(
        said,
        [
            "1:1: found the name \"Web_1\", expected lower-case letters, digits and \"-\", a letter first, at most 63 bytes; write \"web-1\"",
            "2:1: found \"oops\", expected a line such as \"web: web.wasm\", or a comment that begins with #",
            "4:1: the type \"web\" is on line 3 already: give one of them another name",
            "5:1: found the name \"\", expected lower-case letters, digits and \"-\", a letter first, at most 63 bytes",
            "6:4: found \"cd\", expected the path of a component, which ends in .wasm: a program is built for WASI to be run here, and no shell or interpreter is",
            "6:11: found \"&&\", another command after the first, and no shell is run; expected the component and its arguments alone (in quotes it stands for itself)",
        ]
    );
    assert_eq!(problems("# nothing\n"), ["1:1: no process types; expected lines such as \"web: web.wasm\""]);
    let many: String = (0..101).map(|n| format!("w{n}: w.wasm\n")).collect();
    assert_eq!(problems(&many), ["1:1: found 101 process types, expected at most 100"]);
    let hostile = problems("a\u{1b}[2J\u{202e}b\n");
    assert!(hostile[0].starts_with("1:1: found \"a\\u{1b}[2J\\u{202e}b\""), "{hostile:?}");
}

#[test]
fn port_is_where_the_host_listens() {
    let listens = |port: &'static str| {
        let environment = move |name: &str| (name == "PORT").then(|| OsString::from(port));
        read_with("web: web.wasm $PORT", &environment, None)
    };
    let formation = listens("3000").unwrap();
    assert_eq!(formation.http.listen, [Listen::Tcp("127.0.0.1:3000".into())]);
    assert_eq!(formation.processes[0].args, ["3000"]);
    assert_eq!(listens("").unwrap().http.listen, [Listen::Tcp("127.0.0.1:8080".into())]);
    let of_file = read_with("web: web.wasm", &|_| None, Some("PORT=5000")).unwrap();
    assert_eq!(of_file.http.listen, [Listen::Tcp("127.0.0.1:5000".into())]);
    for wrong in ["65536", "80@evil", "+80", "x"] {
        let said = listens(wrong).unwrap_err().to_string();
        assert!(said.starts_with("Procfile:1:1: the environment variable PORT says where"), "{said}");
        assert!(!said.contains("evil"), "{said}");
    }
}

#[test]
fn files_are_told_apart_by_their_name() {
    for (name, is) in [
        ("Procfile", true),
        ("dir/Procfile.dev", true),
        ("Procfile.toml", false),
        ("Procfile.wasm", false),
        ("procfile", false),
        ("formation.toml", false),
        ("", false),
    ] {
        assert_eq!(is_procfile(Path::new(name)), is, "{name}");
    }
    assert_eq!(default_state_dir(Path::new("/a/Procfile")), Path::new("/a/.wasmhost"));
    assert_eq!(default_state_dir(Path::new("/a/Procfile.dev")), Path::new("/a/.wasmhost-Procfile.dev"));
}

#[test]
fn a_file_is_read_whole_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Procfile");
    std::fs::write(&file, "# a\nweb: web.wasm\n").unwrap();
    std::fs::write(folder.path().join(".env"), "A=1\nnot one\n").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains(".env:2:1: found a line without"));
    std::fs::write(folder.path().join(".env"), "A=1\n").unwrap();
    assert_eq!(load(&file).unwrap().processes[0].grants.env[0].value, "1");
    assert_eq!(procfile_lines(&file).into_iter().collect::<Vec<_>>(), [("web".to_owned(), 2)]);
    std::fs::write(&file, "#".repeat((64 << 10) + 1)).unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("found a file of more than 64 KiB"));
    std::fs::write(&file, b"web: web.wasm \xff").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("Procfile:1:15: found a byte that isn't UTF-8"));
}

#[test]
fn what_is_imported_keeps_comments_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Procfile");
    let text = "# The shop.\n# Two lines.\nweb: A=\"b \\\" c\" web.wasm '--x y' $PORT # serves\n\nworker: w.wasm\n# the end\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(folder.path().join(".env"), "KEY=1\nodd.name=2\n").unwrap();
    let written = load_procfile(&file).unwrap().to_toml();
    assert_eq!(
        written,
        r##"[http]
listen = "127.0.0.1:${PORT:-8080}"

# The shop.
# Two lines.
# serves
[process.web]
component = "web.wasm"
args = ["--x y", "${PORT:-8080}"]
[process.web.env]
KEY = { from_env = "KEY" }
"odd.name" = { from_env = "odd.name" }
A = "b \" c"

[process.worker]
component = "w.wasm"
[process.worker.env]
KEY = { from_env = "KEY" }
"odd.name" = { from_env = "odd.name" }

# the end
"##
    );
    let toml = folder.path().join("formation.toml");
    std::fs::write(&toml, written).unwrap();
    let (of_procfile, of_toml) = (load(&file).unwrap(), load(&toml).unwrap());
    let source = of_toml.source.clone();
    assert_eq!(Formation { file: toml, source, ..of_procfile }, of_toml);
}

#[test]
fn a_formation_becomes_a_procfile_and_says_what_that_leaves_out() {
    let text = r#"
        name = "other"
        grace = "5s"
        [http]
        listen = "0.0.0.0:80"
        [process.web]
        component = "sub dir/web.wasm"
        args = ["a b", "it's", "${HOME}/x", "$${no}", ""]
        count = 4
        route = "/"
        env = { LOG = "in fo", KEY = { from_env = "KEY" }, MIX = "<${KEY}>" }
        [process.worker]
        component = "/opt/worker.wasm"
        queue = "mail"
        [process.migrate]
        component = "tools.wasm"
        run = "release"
        [process.tool]
        component = "tools.wasm"
        run = "never"
    "#;
    let environment = |name: &str| (name != "PORT").then(|| OsString::from(format!("s3cret-{name}")));
    let origin = Origin {
        file: Path::new("formation.toml"),
        folder: Path::new("/srv/shop"),
        environment: &environment,
        dotenv: None,
    };
    let written = parse(text, &origin).unwrap().to_procfile();
    assert_eq!(
        written.text,
        "web: LOG='in fo' MIX='<'\"${KEY}\"'>' 'sub dir/web.wasm' 'a b' 'it'\\''s' \"${HOME}\"/x '${no}' ''\n\
         worker: /opt/worker.wasm\nrelease: tools.wasm\n# tool: tools.wasm\n"
    );
    assert_eq!(
        written.left_out,
        [
            "name = \"other\"",
            "grace = \"5s\"",
            "http.listen = \"0.0.0.0:80\"",
            "process.web: the value of env.KEY, which belongs in .env",
            "process.web: count = 4",
            "process.worker: queue = \"mail\"",
            "process.migrate: its name, since a Procfile's release step is `release`",
            "process.tool: it is run by hand alone, and a Procfile runs each type",
        ]
    );
    assert!(!format!("{written:?}").contains("s3cret"));
    let again = read_with(&written.text, &environment, None).unwrap();
    assert_eq!(again.processes[0].args, ["a b", "it's", "s3cret-HOME/x", "${no}", ""]);
    assert_eq!(again.processes[0].grants.env[1].value, "<s3cret-KEY>");
}

/// Pieces that bring the reader further than random characters do.
const PIECES: [&str; 34] = [
    "web", "worker", "release", ":", ": ", "web.wasm", " ", "\t", "\n", "\r\n", "'", "\"", "\\", "$", "${",
    "}", ":-", "$A", "${A}", "${B:-c}", "#", "=", "A=", "|", "&&", ";", "`", "$(", "*", "~", "\0", "\u{1b}",
    "ä", "\u{feff}",
];

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30),
        text in "\\PC*",
        dotenv in prop::option::of("[A-C.=\n'\" ]{0,20}"),
    ) {
        for text in [pieces.concat(), format!("web: web.wasm {}", pieces.concat()), text] {
            let environment = |name: &str| (name == "A").then(|| OsString::from("${B} 'x"));
            match read_with(&text, &environment, dotenv.as_deref()) {
                Ok(formation) => {
                    prop_assert!(!formation.processes.is_empty());
                    prop_assert!(!formation.to_procfile().text.is_empty());
                }
                Err(error) => {
                    let said = error.to_string();
                    prop_assert!(said.contains("Procfile:") || said.contains(".env:"), "{}", said);
                    prop_assert!(!said.contains(['\u{1b}', '\0']), "{:?}", said);
                }
            }
        }
    }

    #[test]
    fn an_argument_comes_back_through_a_procfile(
        args in prop::collection::vec("[a '\"\\\\$#*|~;=ä-]{0,8}|[^\0\r\n\\p{C}]{0,8}", 0..4),
    ) {
        let mut formation = read("web: web.wasm");
        formation.processes[0].args = args.clone();
        let written = formation.to_procfile();
        let again = read_with(&written.text, &|_| None, None);
        prop_assert!(again.is_ok(), "{}\n{}", again.unwrap_err(), written.text);
        prop_assert_eq!(&again.unwrap().processes[0].args, &args, "{}", written.text);
    }
}
