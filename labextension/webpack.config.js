// Modules are named by their place in the folder: the default's short numbers hang on the path that the folder lies in, and
// the bundle would be another on each machine.
module.exports = { optimization: { moduleIds: 'named', chunkIds: 'named' } };
