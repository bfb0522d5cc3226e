import { rename, rm } from 'node:fs/promises';
import { writeSafetensors, type TensorSource } from '../safetensors-writer.js';

/** Writes tensors into a file that appears whole or not at all. */
export async function writePrepared(file: string, sources: readonly TensorSource[], format: string): Promise<void> {
  const partial = `${file}.${process.pid}.partial`;
  try {
    await writeSafetensors(partial, sources, { metadata: { format } });
    await rename(partial, file);
  } finally {
    await rm(partial, { force: true });
  }
}
