export { type DeviceTensor, type Program, Runtime, type RuntimeOptions, type StoredTensor } from './runtime.js';
export { providers } from './providers.js';
