import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Mounts a file system in memory of so many bytes on a folder, which takes the rights of an administrator. */
export async function mountInMemory(folder: string, bytes: number, ...options: string[]): Promise<void> {
  const all = [...options, `size=${bytes}`].join(',');
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', all, 'duanzi-crash', folder]);
}

export async function unmount(folder: string): Promise<void> {
  await promisify(execFile)('umount', [folder]);
}
