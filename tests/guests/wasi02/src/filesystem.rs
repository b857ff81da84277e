//! `wasi:filesystem`. Its caller passes `--dir A::/w --dir B::/ro::ro`, both fresh: A is empty, B has a file `file`, that
//! says `read me`, and an empty directory `dir`. Beside A is a file `outside`.

use wasip2::clocks::wall_clock::Datetime;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Advice, Descriptor, DescriptorFlags, DescriptorType, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};
use wasip2::io::streams::StreamError;

const NO: PathFlags = PathFlags::empty();
const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;

pub(crate) const CASES: &[crate::Case] = &[
    ("directories_have_their_names", |_| {
        let names: Vec<_> = get_directories().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["/w", "/ro"]);
    }),
    ("write_and_read", write_and_read),
    ("streams", streams),
    ("append", append),
    ("create_exclusively", create_exclusively),
    ("open_what_it_is_not", open_what_it_is_not),
    ("truncate", truncate),
    ("directories", directories),
    ("rename", rename),
    ("unlink", unlink),
    ("hard_links", hard_links),
    ("symbolic_links", symbolic_links),
    ("stat", stat),
    ("set_times", set_times),
    ("read_only", read_only),
    ("no_way_out", no_way_out),
    ("wrong_paths", wrong_paths),
    ("sync_and_advise", sync_and_advise),
    ("the_standard_library_agrees", standard_library),
];

fn granted(name: &str) -> Descriptor {
    let found = get_directories().into_iter().find(|(_, known)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).0
}

fn open(
    dir: &Descriptor,
    path: &str,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> Result<Descriptor, ErrorCode> {
    dir.open_at(NO, path, how, flags)
}

fn reading(dir: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    open(dir, path, OpenFlags::empty(), DescriptorFlags::READ)
}

fn create(dir: &Descriptor, path: &str) -> Descriptor {
    open(dir, path, OpenFlags::CREATE, DescriptorFlags::READ | DescriptorFlags::WRITE).unwrap()
}

fn create_with(dir: &Descriptor, path: &str, text: &str) -> Descriptor {
    let file = create(dir, path);
    assert_eq!(file.write(text.as_bytes(), 0), Ok(text.len() as u64));
    file
}

fn text(file: &Descriptor) -> String {
    let (bytes, _) = file.read(1 << 16, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The error, which is one of these.
#[track_caller]
fn fails<T>(result: Result<T, ErrorCode>, expected: &[ErrorCode]) {
    match result {
        Ok(_) => panic!("it went well, and {expected:?} was expected"),
        Err(err) => assert!(expected.contains(&err), "{err:?}, and {expected:?} was expected"),
    }
}

fn write_and_read(_: &[String]) {
    let dir = granted("/w");
    let file = create_with(&dir, "a", "hello");
    assert_eq!(file.read(3, 1), Ok((b"ell".to_vec(), false)));
    let (bytes, end) = file.read(100, 3).unwrap();
    assert!(bytes == b"lo" && (end || file.read(100, 5) == Ok((vec![], true))));
    assert_eq!(file.read(10, 100), Ok((vec![], true)), "past the end");
    // The bytes between are zeros.
    assert_eq!(file.write(b"!", 8), Ok(1));
    assert_eq!(text(&file), "hello\0\0\0!");
    assert_eq!(
        file.get_flags().unwrap() & (DescriptorFlags::READ | DescriptorFlags::WRITE),
        DescriptorFlags::READ | DescriptorFlags::WRITE
    );
    let reader = reading(&dir, "a").unwrap();
    fails(reader.write(b"x", 0), &[ErrorCode::BadDescriptor, ErrorCode::NotPermitted]);
    let writer = open(&dir, "a", OpenFlags::empty(), DescriptorFlags::WRITE).unwrap();
    fails(writer.read(1, 0), &[ErrorCode::BadDescriptor, ErrorCode::NotPermitted]);
}

fn streams(_: &[String]) {
    let dir = granted("/w");
    let file = create(&dir, "a");
    let output = file.write_via_stream(2).unwrap();
    let long = vec![b'x'; 100_000];
    for piece in long.chunks(4096) {
        output.blocking_write_and_flush(piece).unwrap();
    }
    output.blocking_write_and_flush(b"end").unwrap();
    drop(output);
    assert_eq!(file.stat().unwrap().size, 100_005);
    let input = file.read_via_stream(1).unwrap();
    let mut read = Vec::new();
    loop {
        match input.blocking_read(30_000) {
            Ok(bytes) => read.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(err) => panic!("{err:?}"),
        }
    }
    assert_eq!(read.len(), 100_004);
    assert!(read.starts_with(b"\0x") && read.ends_with(b"xend"));
    assert_eq!(file.read_via_stream(0).unwrap().blocking_skip(2).unwrap(), 2);
}

fn append(_: &[String]) {
    let dir = granted("/w");
    let file = create_with(&dir, "a", "one");
    file.append_via_stream().unwrap().blocking_write_and_flush(b" two").unwrap();
    file.append_via_stream().unwrap().blocking_write_and_flush(b" three").unwrap();
    assert_eq!(text(&file), "one two three");
}

fn create_exclusively(_: &[String]) {
    let dir = granted("/w");
    let new = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    open(&dir, "a", new, DescriptorFlags::WRITE).unwrap();
    fails(open(&dir, "a", new, DescriptorFlags::WRITE), &[ErrorCode::Exist]);
    open(&dir, "a", OpenFlags::CREATE, DescriptorFlags::WRITE).unwrap();
    fails(reading(&dir, "b"), &[ErrorCode::NoEntry]);
    // A link that leads nowhere is there, too.
    dir.symlink_at("nowhere", "link").unwrap();
    fails(open(&dir, "link", new, DescriptorFlags::WRITE), &[ErrorCode::Exist]);
}

fn open_what_it_is_not(_: &[String]) {
    let dir = granted("/w");
    create(&dir, "file");
    dir.create_directory_at("sub").unwrap();
    fails(open(&dir, "file", OpenFlags::DIRECTORY, DescriptorFlags::READ), &[ErrorCode::NotDirectory]);
    fails(open(&dir, "sub", OpenFlags::empty(), DescriptorFlags::WRITE), &[ErrorCode::IsDirectory]);
    let sub = open(&dir, "sub", OpenFlags::DIRECTORY, DescriptorFlags::READ).unwrap();
    assert_eq!(sub.get_type(), Ok(DescriptorType::Directory));
    assert_eq!(reading(&dir, "file").unwrap().get_type(), Ok(DescriptorType::RegularFile));
    fails(sub.read(1, 0), &[ErrorCode::BadDescriptor, ErrorCode::IsDirectory]);
    let file = reading(&dir, "file").unwrap();
    fails(file.read_directory(), &[ErrorCode::NotDirectory, ErrorCode::BadDescriptor]);
    fails(reading(&file, "x"), &[ErrorCode::NotDirectory, ErrorCode::BadDescriptor]);
}

fn truncate(_: &[String]) {
    let dir = granted("/w");
    let file = create_with(&dir, "a", "hello");
    file.set_size(2).unwrap();
    assert_eq!(text(&file), "he");
    file.set_size(4).unwrap();
    assert_eq!(text(&file), "he\0\0");
    open(&dir, "a", OpenFlags::TRUNCATE, DescriptorFlags::WRITE).unwrap();
    assert_eq!(file.stat().unwrap().size, 0);
    fails(
        reading(&dir, "a").unwrap().set_size(1),
        &[ErrorCode::BadDescriptor, ErrorCode::Invalid, ErrorCode::NotPermitted],
    );
}

fn entries(dir: &Descriptor) -> Vec<(String, DescriptorType)> {
    let entries = dir.read_directory().unwrap();
    let mut all = Vec::new();
    while let Some(entry) = entries.read_directory_entry().unwrap() {
        all.push((entry.name, entry.type_));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn directories(_: &[String]) {
    let dir = granted("/w");
    assert_eq!(entries(&dir), []);
    dir.create_directory_at("sub").unwrap();
    fails(dir.create_directory_at("sub"), &[ErrorCode::Exist]);
    fails(dir.create_directory_at("a/b"), &[ErrorCode::NoEntry]);
    dir.create_directory_at("sub/b").unwrap();
    create(&dir, "sub/a");
    dir.symlink_at("a", "sub/c").unwrap();
    let sub =
        open(&dir, "sub", OpenFlags::DIRECTORY, DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY)
            .unwrap();
    let expected = [
        ("a".to_owned(), DescriptorType::RegularFile),
        ("b".to_owned(), DescriptorType::Directory),
        ("c".to_owned(), DescriptorType::SymbolicLink),
    ];
    assert_eq!(entries(&sub), expected);
    // By the handle of the directory below, too.
    create(&sub, "b/x");
    assert_eq!(dir.stat_at(NO, "sub/b/x").unwrap().type_, DescriptorType::RegularFile);
    fails(dir.remove_directory_at("sub"), &[ErrorCode::NotEmpty]);
    fails(dir.remove_directory_at("sub/a"), &[ErrorCode::NotDirectory]);
    sub.unlink_file_at("b/x").unwrap();
    dir.remove_directory_at("sub/b").unwrap();
    fails(dir.remove_directory_at("sub/b"), &[ErrorCode::NoEntry]);
    for n in 0..300 {
        create(&sub, &format!("many-{n}"));
    }
    assert_eq!(entries(&sub).len(), 302);
}

fn rename(_: &[String]) {
    let dir = granted("/w");
    create_with(&dir, "a", "a");
    dir.create_directory_at("sub").unwrap();
    let sub =
        open(&dir, "sub", OpenFlags::DIRECTORY, DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY)
            .unwrap();
    dir.rename_at("a", &sub, "b").unwrap();
    fails(reading(&dir, "a"), &[ErrorCode::NoEntry]);
    create_with(&dir, "c", "c");
    sub.rename_at("b", &dir, "c").unwrap();
    assert_eq!(text(&reading(&dir, "c").unwrap()), "a", "it takes the place of what was there");
    fails(dir.rename_at("missing", &dir, "d"), &[ErrorCode::NoEntry]);
    fails(dir.rename_at("c", &dir, "missing/d"), &[ErrorCode::NoEntry]);
    fails(dir.rename_at("c", &dir, "sub"), &[ErrorCode::IsDirectory]);
    fails(dir.rename_at("sub", &dir, "c"), &[ErrorCode::NotDirectory]);
    fails(dir.rename_at("sub", &dir, "sub/below"), &[ErrorCode::Invalid]);
    dir.rename_at("sub", &dir, "other").unwrap();
    assert_eq!(dir.stat_at(NO, "other").unwrap().type_, DescriptorType::Directory);
}

fn unlink(_: &[String]) {
    let dir = granted("/w");
    let file = create_with(&dir, "a", "still here");
    dir.unlink_file_at("a").unwrap();
    fails(dir.unlink_file_at("a"), &[ErrorCode::NoEntry]);
    assert_eq!(text(&file), "still here");
    assert_eq!(file.stat().unwrap().link_count, 0);
    dir.create_directory_at("sub").unwrap();
    fails(dir.unlink_file_at("sub"), &[ErrorCode::IsDirectory, ErrorCode::NotPermitted]);
    dir.symlink_at("sub", "link").unwrap();
    dir.unlink_file_at("link").unwrap();
    assert_eq!(dir.stat_at(NO, "sub").unwrap().type_, DescriptorType::Directory);
}

fn hard_links(_: &[String]) {
    let dir = granted("/w");
    let file = create_with(&dir, "a", "one file");
    dir.link_at(NO, "a", &dir, "b").unwrap();
    let other = reading(&dir, "b").unwrap();
    assert_eq!(text(&other), "one file");
    assert_eq!(file.stat().unwrap().link_count, 2);
    assert!(file.is_same_object(&other));
    let (one, two) = (file.metadata_hash().unwrap(), dir.metadata_hash_at(NO, "b").unwrap());
    assert_eq!((one.lower, one.upper), (two.lower, two.upper));
    let third = create(&dir, "c");
    assert!(!file.is_same_object(&third));
    fails(dir.link_at(NO, "a", &dir, "b"), &[ErrorCode::Exist]);
    fails(dir.link_at(NO, "missing", &dir, "d"), &[ErrorCode::NoEntry]);
}

fn symbolic_links(_: &[String]) {
    let dir = granted("/w");
    create_with(&dir, "file", "found");
    dir.create_directory_at("sub").unwrap();
    dir.symlink_at("file", "link").unwrap();
    dir.symlink_at("../file", "sub/up").unwrap();
    fails(dir.symlink_at("file", "link"), &[ErrorCode::Exist]);
    assert_eq!(dir.readlink_at("link").as_deref(), Ok("file"));
    assert_eq!(dir.readlink_at("sub/up").as_deref(), Ok("../file"));
    fails(dir.readlink_at("file"), &[ErrorCode::Invalid]);
    assert_eq!(dir.stat_at(NO, "link").unwrap().type_, DescriptorType::SymbolicLink);
    assert_eq!(dir.stat_at(FOLLOW, "link").unwrap().type_, DescriptorType::RegularFile);
    fails(reading(&dir, "link"), &[ErrorCode::Loop]);
    let followed = |path| dir.open_at(FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ);
    assert_eq!(text(&followed("link").unwrap()), "found");
    assert_eq!(text(&followed("sub/up").unwrap()), "found", "up, and not out");
    dir.symlink_at("around", "around").unwrap();
    fails(followed("around"), &[ErrorCode::Loop]);
    dir.symlink_at("nowhere", "dangling").unwrap();
    fails(followed("dangling"), &[ErrorCode::NoEntry]);
    dir.symlink_at("sub", "dir-link").unwrap();
    // In the middle of a path a link is always followed.
    assert_eq!(dir.readlink_at("dir-link/up").as_deref(), Ok("../file"));
}

fn stat(_: &[String]) {
    let dir = granted("/w");
    let before = wasip2::clocks::wall_clock::now().seconds;
    let file = create_with(&dir, "a", "12345");
    let seen = file.stat().unwrap();
    assert_eq!((seen.type_, seen.size, seen.link_count), (DescriptorType::RegularFile, 5, 1));
    let modified = seen.data_modification_timestamp.unwrap().seconds;
    assert!(modified + 5 >= before && modified <= before + 60, "{modified} {before}");
    let by_path = dir.stat_at(NO, "a").unwrap();
    assert_eq!((by_path.type_, by_path.size), (DescriptorType::RegularFile, 5));
    assert_eq!(dir.stat().unwrap().type_, DescriptorType::Directory);
    fails(dir.stat_at(NO, "missing"), &[ErrorCode::NoEntry]);
    assert_eq!(dir.stat_at(NO, ".").unwrap().type_, DescriptorType::Directory);
}

fn set_times(_: &[String]) {
    let dir = granted("/w");
    let file = create(&dir, "a");
    let at = |seconds| NewTimestamp::Timestamp(Datetime { seconds, nanoseconds: 5_000 });
    let seen = |stat: wasip2::filesystem::types::DescriptorStat| {
        let time = |time: Option<Datetime>| time.map(|time| (time.seconds, time.nanoseconds)).unwrap();
        (time(stat.data_access_timestamp), time(stat.data_modification_timestamp))
    };
    file.set_times(at(1_000_000), at(2_000_000)).unwrap();
    assert_eq!(seen(file.stat().unwrap()), ((1_000_000, 5_000), (2_000_000, 5_000)));
    dir.set_times_at(NO, "a", NewTimestamp::NoChange, at(3_000_000)).unwrap();
    assert_eq!(seen(file.stat().unwrap()), ((1_000_000, 5_000), (3_000_000, 5_000)));
    file.set_times(NewTimestamp::NoChange, NewTimestamp::Now).unwrap();
    let (accessed, modified) = seen(file.stat().unwrap());
    assert!(accessed == (1_000_000, 5_000) && modified.0 > 1_704_067_200);
    // The times of the link itself, or of what it leads to.
    dir.symlink_at("a", "link").unwrap();
    dir.set_times_at(NO, "link", at(4_000_000), at(4_000_000)).unwrap();
    assert_ne!(seen(file.stat().unwrap()).1, (4_000_000, 5_000));
    dir.set_times_at(FOLLOW, "link", at(5_000_000), at(5_000_000)).unwrap();
    assert_eq!(seen(file.stat().unwrap()).1, (5_000_000, 5_000));
    fails(dir.set_times_at(NO, "missing", NewTimestamp::Now, NewTimestamp::Now), &[ErrorCode::NoEntry]);
}

fn read_only(_: &[String]) {
    let refused = &[ErrorCode::NotPermitted, ErrorCode::ReadOnly, ErrorCode::Access];
    let dir = granted("/ro");
    assert_eq!(text(&reading(&dir, "file").unwrap()), "read me");
    assert!(!dir.get_flags().unwrap().contains(DescriptorFlags::MUTATE_DIRECTORY));
    fails(open(&dir, "new", OpenFlags::CREATE, DescriptorFlags::READ), refused);
    fails(open(&dir, "new", OpenFlags::CREATE, DescriptorFlags::WRITE), refused);
    fails(open(&dir, "file", OpenFlags::empty(), DescriptorFlags::WRITE), refused);
    fails(open(&dir, "file", OpenFlags::TRUNCATE, DescriptorFlags::READ), refused);
    fails(dir.create_directory_at("new"), refused);
    fails(dir.unlink_file_at("file"), refused);
    fails(dir.remove_directory_at("dir"), refused);
    fails(dir.rename_at("file", &dir, "new"), refused);
    fails(dir.symlink_at("file", "new"), refused);
    fails(dir.link_at(NO, "file", &dir, "new"), refused);
    fails(dir.set_times_at(NO, "file", NewTimestamp::Now, NewTimestamp::Now), refused);
    let file = reading(&dir, "file").unwrap();
    fails(file.set_times(NewTimestamp::Now, NewTimestamp::Now), refused);
    let below = open(&dir, "dir", OpenFlags::DIRECTORY, DescriptorFlags::READ).unwrap();
    fails(below.create_directory_at("new"), refused);
    // From there to where one may write, and back.
    let writable = granted("/w");
    fails(dir.rename_at("file", &writable, "file"), refused);
    fails(dir.link_at(NO, "file", &writable, "file"), refused);
    create(&writable, "mine");
    fails(writable.rename_at("mine", &dir, "mine"), refused);
    assert_eq!(text(&reading(&dir, "file").unwrap()), "read me");
}

fn no_way_out(_: &[String]) {
    let dir = granted("/w");
    let refused = &[ErrorCode::NotPermitted];
    dir.create_directory_at("sub").unwrap();
    for path in ["..", "../outside", "sub/../../outside", "/etc/passwd", "/", "./../outside", "sub/../.."] {
        fails(reading(&dir, path), refused);
        fails(dir.open_at(FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ), refused);
        fails(dir.stat_at(NO, path), refused);
        fails(dir.unlink_file_at(path), &[ErrorCode::NotPermitted]);
        fails(dir.create_directory_at(path), &[ErrorCode::NotPermitted]);
        fails(dir.readlink_at(path), refused);
    }
    fails(dir.symlink_at("/etc/passwd", "absolute"), refused);
    // A link may lead out; it isn't followed there.
    dir.symlink_at("../outside", "link").unwrap();
    fails(dir.open_at(FOLLOW, "link", OpenFlags::empty(), DescriptorFlags::READ), refused);
    fails(dir.stat_at(FOLLOW, "link"), refused);
    dir.symlink_at("..", "up").unwrap();
    fails(reading(&dir, "up/outside"), refused);
    fails(dir.rename_at("sub", &dir, "../moved"), refused);
    fails(dir.link_at(NO, "../outside", &dir, "linked"), refused);
    let sub = open(&dir, "sub", OpenFlags::DIRECTORY, DescriptorFlags::READ).unwrap();
    fails(sub.open_at(NO, "../sub", OpenFlags::DIRECTORY, DescriptorFlags::READ), refused);
    assert!(std::fs::read_dir("/etc").is_err());
}

fn wrong_paths(_: &[String]) {
    let dir = granted("/w");
    create(&dir, "file");
    fails(reading(&dir, ""), &[ErrorCode::NoEntry]);
    fails(reading(&dir, "file/below"), &[ErrorCode::NotDirectory]);
    fails(reading(&dir, "file/"), &[ErrorCode::NotDirectory]);
    fails(reading(&dir, &"x".repeat(300)), &[ErrorCode::NameTooLong]);
    fails(reading(&dir, &"x/".repeat(5000)), &[ErrorCode::NameTooLong, ErrorCode::NoEntry]);
    fails(reading(&dir, "a\0b"), &[ErrorCode::Invalid, ErrorCode::IllegalByteSequence]);
    fails(
        open(&dir, "new/", OpenFlags::CREATE, DescriptorFlags::WRITE),
        &[ErrorCode::IsDirectory, ErrorCode::NoEntry, ErrorCode::NotDirectory, ErrorCode::Invalid],
    );
    let file = create_with(&dir, "ü ♥", "any name");
    assert_eq!(text(&reading(&dir, "./ü ♥").unwrap()), text(&file));
}

fn sync_and_advise(_: &[String]) {
    let dir = granted("/w");
    let file = create_with(&dir, "a", "kept");
    file.sync().unwrap();
    file.sync_data().unwrap();
    dir.sync().unwrap();
    for advice in [
        Advice::Normal,
        Advice::Sequential,
        Advice::Random,
        Advice::WillNeed,
        Advice::DontNeed,
        Advice::NoReuse,
    ] {
        file.advise(0, 4, advice).unwrap();
    }
}

fn standard_library(_: &[String]) {
    use std::fs;
    use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
    fs::create_dir_all("/w/a/b").unwrap();
    fs::write("/w/a/b/c", "text").unwrap();
    let mut file = fs::OpenOptions::new().read(true).append(true).open("/w/a/b/c").unwrap();
    file.write_all(b" more").unwrap();
    file.seek(SeekFrom::Start(2)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "xt more");
    assert_eq!(file.seek(SeekFrom::End(-4)).unwrap(), 5);
    fs::copy("/w/a/b/c", "/w/d").unwrap();
    assert_eq!(fs::metadata("/w/d").unwrap().len(), 9);
    fs::remove_dir_all("/w/a").unwrap();
    assert_eq!(fs::read("/w/a/b/c").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir("/w").unwrap().count(), 1);
}
