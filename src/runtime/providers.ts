import { listSupportedBackends } from 'onnxruntime-node';

/** Execution providers that the installed build of ONNX Runtime holds, whether this machine has such a device or not. */
export const providers = (): string[] => listSupportedBackends().map(({ name }) => name);
