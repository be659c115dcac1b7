//! Configurations of routers: in flows what a speaker has to do, out flows what its software wants to read.

pub mod twill;
