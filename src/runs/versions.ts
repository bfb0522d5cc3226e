import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { errnoOf } from './file-faults.js';

export const versionsSchema = z.object({
  duanzi: z.string(),
  node: z.string(),
  /** Null where the package is not installed. */
  onnxruntime: z.string().nullable(),
});

/** What a run was made with. */
export type Versions = z.infer<typeof versionsSchema>;

const packageFile = z.object({ name: z.string().optional(), version: z.string().optional() });

/** Versions of this package, Node.js and the ONNX Runtime package, as their package.json files say. */
export function readVersions(): Versions {
  const here = dirname(fileURLToPath(import.meta.url));
  const own = findUp(here, 'package.json', 'duanzi');
  if (own === undefined) throw new Error(`No package.json of duanzi above ${here}`);
  const runtime = findUp(here, join('node_modules', 'onnxruntime-node', 'package.json'), 'onnxruntime-node');
  return { duanzi: own, node: process.versions.node, onnxruntime: runtime ?? null };
}

/** The version in the nearest `file` in or above `folder` that describes the package `name`. */
function findUp(folder: string, file: string, name: string): string | undefined {
  const found = readPackage(join(folder, file));
  if (found?.name === name && found.version !== undefined) return found.version;
  const parent = dirname(folder);
  return parent === folder ? undefined : findUp(parent, file, name);
}

function readPackage(path: string): z.infer<typeof packageFile> | undefined {
  try {
    return packageFile.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
