//! `wasi:filesystem`, with the same directories as in `wasi02`.

use wasip3::clocks::system_clock::Instant;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{
    Advice, Descriptor, DescriptorFlags, DescriptorType, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};
use wasip3::wit_stream;

use crate::case;

const NO: PathFlags = PathFlags::empty();
const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;

pub(crate) const CASES: &[crate::Case] = &[
    case!(directories_have_their_names),
    case!(write_and_read),
    case!(append),
    case!(much_data),
    case!(create_exclusively),
    case!(open_what_it_is_not),
    case!(truncate),
    case!(directories),
    case!(rename),
    case!(unlink),
    case!(hard_links),
    case!(symbolic_links),
    case!(set_times),
    case!(read_only),
    case!(no_way_out),
    case!(wrong_paths),
    case!(sync_and_advise),
];

fn granted(name: &str) -> Descriptor {
    let found = get_directories().into_iter().find(|(_, known)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).0
}

async fn open(
    dir: &Descriptor,
    path: &str,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> Result<Descriptor, ErrorCode> {
    dir.open_at(NO, path.to_owned(), how, flags).await
}

async fn reading(dir: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    open(dir, path, OpenFlags::empty(), DescriptorFlags::READ).await
}

async fn followed(dir: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    dir.open_at(FOLLOW, path.to_owned(), OpenFlags::empty(), DescriptorFlags::READ).await
}

async fn create(dir: &Descriptor, path: &str, text: &str) -> Descriptor {
    let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
    let file = open(dir, path, OpenFlags::CREATE, flags).await.unwrap();
    write(&file, 0, text.as_bytes().to_vec()).await.unwrap();
    file
}

async fn write(file: &Descriptor, offset: u64, bytes: Vec<u8>) -> Result<(), ErrorCode> {
    let (mut writer, reader) = wit_stream::new();
    let written = file.write_via_stream(reader, offset);
    writer.write_all(bytes).await;
    drop(writer);
    written.await
}

async fn read(file: &Descriptor, offset: u64) -> Result<Vec<u8>, ErrorCode> {
    let (reader, ended) = file.read_via_stream(offset);
    let bytes = reader.collect().await;
    ended.await.map(|()| bytes)
}

async fn text(file: &Descriptor) -> String {
    String::from_utf8(read(file, 0).await.unwrap()).unwrap()
}

async fn entries(dir: &Descriptor) -> Vec<String> {
    let (entries, ended) = dir.read_directory();
    let entries = entries.collect().await;
    ended.await.unwrap();
    let kind = |kind| format!("{kind:?}").trim_start_matches("DescriptorType::").to_owned();
    let mut all: Vec<_> =
        entries.into_iter().map(|entry| format!("{} {}", entry.name, kind(entry.type_))).collect();
    all.sort();
    all
}

/// The error's name is one of these.
#[track_caller]
fn fails<T>(result: Result<T, ErrorCode>, expected: &[&str]) {
    match result {
        Ok(_) => panic!("it went well, and {expected:?} was expected"),
        Err(err) => {
            let name = format!("{err:?}");
            let name = name.trim_start_matches("ErrorCode::");
            assert!(expected.contains(&name), "{name}, and {expected:?} was expected");
        }
    }
}

async fn directories_have_their_names(_: Vec<String>) {
    let names: Vec<_> = get_directories().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["/w", "/ro"]);
}

async fn write_and_read(_: Vec<String>) {
    let dir = granted("/w");
    let file = create(&dir, "a", "hello").await;
    assert_eq!(read(&file, 1).await.unwrap(), b"ello");
    assert_eq!(read(&file, 100).await.unwrap(), b"");
    write(&file, 8, b"!".to_vec()).await.unwrap();
    assert_eq!(text(&file).await, "hello\0\0\0!");
    assert_eq!(file.stat().await.unwrap().size, 9);
    let reader = reading(&dir, "a").await.unwrap();
    fails(write(&reader, 0, vec![1]).await, &["BadDescriptor", "NotPermitted"]);
    let writer = open(&dir, "a", OpenFlags::empty(), DescriptorFlags::WRITE).await.unwrap();
    fails(read(&writer, 0).await, &["BadDescriptor", "NotPermitted"]);
}

async fn append(_: Vec<String>) {
    let file = create(&granted("/w"), "a", "one").await;
    for word in [" two", " three"] {
        let (mut writer, reader) = wit_stream::new();
        let written = file.append_via_stream(reader);
        assert!(writer.write_all(word.as_bytes().to_vec()).await.is_empty());
        drop(writer);
        written.await.unwrap();
    }
    assert_eq!(text(&file).await, "one two three");
}

async fn much_data(_: Vec<String>) {
    let file = create(&granted("/w"), "a", "").await;
    let all: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    write(&file, 0, all.clone()).await.unwrap();
    assert!(read(&file, 0).await.unwrap() == all);
    // A reader may stop before the end.
    let (mut reader, _) = file.read_via_stream(0);
    assert_eq!(reader.next().await, Some(0));
}

async fn create_exclusively(_: Vec<String>) {
    let dir = granted("/w");
    let new = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    open(&dir, "a", new, DescriptorFlags::WRITE).await.unwrap();
    fails(open(&dir, "a", new, DescriptorFlags::WRITE).await, &["Exist"]);
    open(&dir, "a", OpenFlags::CREATE, DescriptorFlags::WRITE).await.unwrap();
    fails(reading(&dir, "b").await, &["NoEntry"]);
}

async fn open_what_it_is_not(_: Vec<String>) {
    let dir = granted("/w");
    create(&dir, "file", "").await;
    dir.create_directory_at("sub".to_owned()).await.unwrap();
    fails(open(&dir, "file", OpenFlags::DIRECTORY, DescriptorFlags::READ).await, &["NotDirectory"]);
    fails(open(&dir, "sub", OpenFlags::empty(), DescriptorFlags::WRITE).await, &["IsDirectory"]);
    let sub = open(&dir, "sub", OpenFlags::DIRECTORY, DescriptorFlags::READ).await.unwrap();
    assert!(matches!(sub.get_type().await, Ok(DescriptorType::Directory)));
    assert!(matches!(reading(&dir, "file").await.unwrap().get_type().await, Ok(DescriptorType::RegularFile)));
}

async fn truncate(_: Vec<String>) {
    let dir = granted("/w");
    let file = create(&dir, "a", "hello").await;
    file.set_size(2).await.unwrap();
    assert_eq!(text(&file).await, "he");
    open(&dir, "a", OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await.unwrap();
    assert_eq!(file.stat().await.unwrap().size, 0);
}

async fn directories(_: Vec<String>) {
    let dir = granted("/w");
    assert!(entries(&dir).await.is_empty());
    dir.create_directory_at("sub".to_owned()).await.unwrap();
    fails(dir.create_directory_at("sub".to_owned()).await, &["Exist"]);
    fails(dir.create_directory_at("a/b".to_owned()).await, &["NoEntry"]);
    create(&dir, "file", "").await;
    dir.symlink_at("file".to_owned(), "link".to_owned()).await.unwrap();
    assert_eq!(entries(&dir).await, ["file RegularFile", "link SymbolicLink", "sub Directory"]);
    create(&dir, "sub/x", "").await;
    fails(dir.remove_directory_at("sub".to_owned()).await, &["NotEmpty"]);
    fails(dir.remove_directory_at("file".to_owned()).await, &["NotDirectory"]);
    dir.unlink_file_at("sub/x".to_owned()).await.unwrap();
    dir.remove_directory_at("sub".to_owned()).await.unwrap();
    for n in 0..300 {
        create(&dir, &format!("many-{n}"), "").await;
    }
    assert_eq!(entries(&dir).await.len(), 302);
}

async fn rename(_: Vec<String>) {
    let dir = granted("/w");
    create(&dir, "a", "a").await;
    create(&dir, "b", "b").await;
    dir.create_directory_at("sub".to_owned()).await.unwrap();
    dir.rename_at("a".to_owned(), &dir, "b".to_owned()).await.unwrap();
    assert_eq!(text(&reading(&dir, "b").await.unwrap()).await, "a");
    fails(dir.rename_at("a".to_owned(), &dir, "c".to_owned()).await, &["NoEntry"]);
    fails(dir.rename_at("b".to_owned(), &dir, "sub".to_owned()).await, &["IsDirectory"]);
}

async fn unlink(_: Vec<String>) {
    let dir = granted("/w");
    let file = create(&dir, "a", "still here").await;
    dir.unlink_file_at("a".to_owned()).await.unwrap();
    fails(dir.unlink_file_at("a".to_owned()).await, &["NoEntry"]);
    assert_eq!(text(&file).await, "still here");
    dir.create_directory_at("sub".to_owned()).await.unwrap();
    fails(dir.unlink_file_at("sub".to_owned()).await, &["IsDirectory", "NotPermitted"]);
}

async fn hard_links(_: Vec<String>) {
    let dir = granted("/w");
    let file = create(&dir, "a", "one file").await;
    dir.link_at(NO, "a".to_owned(), &dir, "b".to_owned()).await.unwrap();
    let other = reading(&dir, "b").await.unwrap();
    assert_eq!(file.stat().await.unwrap().link_count, 2);
    assert!(file.is_same_object(&other).await);
    let (one, two) = (file.metadata_hash().await.unwrap(), other.metadata_hash().await.unwrap());
    assert_eq!((one.lower, one.upper), (two.lower, two.upper));
    let third = create(&dir, "c", "").await;
    assert!(!file.is_same_object(&third).await);
}

async fn symbolic_links(_: Vec<String>) {
    let dir = granted("/w");
    create(&dir, "file", "found").await;
    dir.symlink_at("file".to_owned(), "link".to_owned()).await.unwrap();
    assert_eq!(dir.readlink_at("link".to_owned()).await.unwrap(), "file");
    fails(dir.readlink_at("file".to_owned()).await, &["Invalid"]);
    let seen = |flags| dir.stat_at(flags, "link".to_owned());
    assert!(matches!(seen(NO).await.unwrap().type_, DescriptorType::SymbolicLink));
    assert!(matches!(seen(FOLLOW).await.unwrap().type_, DescriptorType::RegularFile));
    fails(reading(&dir, "link").await, &["Loop"]);
    assert_eq!(text(&followed(&dir, "link").await.unwrap()).await, "found");
    dir.symlink_at("around".to_owned(), "around".to_owned()).await.unwrap();
    fails(followed(&dir, "around").await, &["Loop"]);
}

async fn set_times(_: Vec<String>) {
    let dir = granted("/w");
    let file = create(&dir, "a", "").await;
    let at = |seconds| NewTimestamp::Timestamp(Instant { seconds, nanoseconds: 5_000 });
    file.set_times(at(1_000_000), at(2_000_000)).await.unwrap();
    dir.set_times_at(NO, "a".to_owned(), NewTimestamp::NoChange, at(3_000_000)).await.unwrap();
    let seen = file.stat().await.unwrap();
    let seconds = |time: Option<Instant>| time.map(|time| (time.seconds, time.nanoseconds));
    assert_eq!(seconds(seen.data_access_timestamp), Some((1_000_000, 5_000)));
    assert_eq!(seconds(seen.data_modification_timestamp), Some((3_000_000, 5_000)));
}

async fn read_only(_: Vec<String>) {
    let refused = &["NotPermitted", "ReadOnly", "Access"];
    let dir = granted("/ro");
    assert_eq!(text(&reading(&dir, "file").await.unwrap()).await, "read me");
    assert!(!dir.get_flags().await.unwrap().contains(DescriptorFlags::MUTATE_DIRECTORY));
    fails(open(&dir, "new", OpenFlags::CREATE, DescriptorFlags::WRITE).await, refused);
    fails(open(&dir, "file", OpenFlags::empty(), DescriptorFlags::WRITE).await, refused);
    fails(open(&dir, "file", OpenFlags::TRUNCATE, DescriptorFlags::READ).await, refused);
    fails(dir.create_directory_at("new".to_owned()).await, refused);
    fails(dir.unlink_file_at("file".to_owned()).await, refused);
    fails(dir.remove_directory_at("dir".to_owned()).await, refused);
    fails(dir.rename_at("file".to_owned(), &dir, "new".to_owned()).await, refused);
    fails(dir.symlink_at("file".to_owned(), "new".to_owned()).await, refused);
    let times = dir.set_times_at(NO, "file".to_owned(), NewTimestamp::Now, NewTimestamp::Now);
    fails(times.await, refused);
    let writable = granted("/w");
    fails(dir.link_at(NO, "file".to_owned(), &writable, "file".to_owned()).await, refused);
}

async fn no_way_out(_: Vec<String>) {
    let dir = granted("/w");
    let refused = &["NotPermitted"];
    dir.create_directory_at("sub".to_owned()).await.unwrap();
    for path in ["..", "../outside", "sub/../../outside", "/etc/passwd", "/"] {
        fails(reading(&dir, path).await, refused);
        fails(followed(&dir, path).await, refused);
        fails(dir.stat_at(NO, path.to_owned()).await, refused);
        fails(dir.unlink_file_at(path.to_owned()).await, refused);
        fails(dir.create_directory_at(path.to_owned()).await, refused);
    }
    fails(dir.symlink_at("/etc/passwd".to_owned(), "absolute".to_owned()).await, refused);
    dir.symlink_at("../outside".to_owned(), "link".to_owned()).await.unwrap();
    fails(followed(&dir, "link").await, refused);
}

async fn wrong_paths(_: Vec<String>) {
    let dir = granted("/w");
    create(&dir, "file", "").await;
    fails(reading(&dir, "").await, &["NoEntry"]);
    fails(reading(&dir, "file/below").await, &["NotDirectory"]);
    fails(reading(&dir, &"x".repeat(300)).await, &["NameTooLong"]);
    create(&dir, "ü ♥", "any name").await;
    assert_eq!(text(&reading(&dir, "./ü ♥").await.unwrap()).await, "any name");
}

async fn sync_and_advise(_: Vec<String>) {
    let file = create(&granted("/w"), "a", "kept").await;
    file.sync().await.unwrap();
    file.sync_data().await.unwrap();
    file.advise(0, 4, Advice::Sequential).await.unwrap();
}
