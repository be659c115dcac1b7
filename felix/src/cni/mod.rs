//! The runtime's calls: what is asked, judged before anything is touched, and what is answered.
