// Loaded before the tests by node --import: the openai package takes the class
// File for a global, which it is from Node.js 20 on. Node.js 18, which Debian
// 12 has, keeps it in a module.
globalThis.File ??= (await import('node:buffer')).File;
