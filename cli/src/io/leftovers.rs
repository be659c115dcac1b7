//! Files that an uninstall takes away. In flow paths, out flow deletes and their count.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Removes these files; one that is not there is fine. How many there were, and a sentence for each that stays.
pub(crate) fn remove(files: impl IntoIterator<Item = PathBuf>) -> (usize, Vec<String>) {
    let (mut removed, mut problems) = (0, Vec::new());
    for file in files {
        match fs::remove_file(&file) {
            Ok(()) => removed += 1,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => problems.push(format!("{} cannot be removed: {error}", file.display())),
        }
    }
    (removed, problems)
}

/// Removes directories that are empty. What is in one belongs to somebody else, and so does the directory then.
pub(crate) fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        let _ = fs::remove_dir(directory);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_fine_and_what_cannot_go_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("ours");
        fs::write(&ours, "").unwrap();
        let none = directory.path().join("none");
        assert_eq!(remove([ours.clone(), none, ours.join("below")]), (1, Vec::new()));
        let (removed, problems) = remove([directory.path().to_owned()]);
        assert_eq!((removed, problems.len()), (0, 1), "a directory is no file: {problems:?}");
    }
}
