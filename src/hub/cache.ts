import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { getHFHubCachePath, getRepoFolderName } from '@huggingface/hub';
import type { ModelId } from '../config/model-id.js';
import { UserError } from '../errors.js';
import { diskError } from '../transfer/download.js';
import { sizeOf } from '../transfer/fetch-file.js';
import type { HubFile } from './source.js';

/**
 * Where the files of one model lie on this machine, as the hub's own libraries lay them out: `blobs/` by checksum,
 * `snapshots/COMMIT/` with links to them, `refs/REVISION` with commits.
 */
export class ModelCache {
  readonly root: string;

  constructor({ source, name }: ModelId) {
    const home = source === 'huggingface' ? getHFHubCachePath() : modelScopeHome();
    this.root = join(home, getRepoFolderName({ type: 'model', name }));
  }

  /** The folder of the model at a commit. */
  folder(commit: string): string {
    return join(this.root, 'snapshots', commit);
  }

  /** Where the content of a file stays. */
  blob({ checksum }: HubFile): string {
    return join(this.root, 'blobs', checksum.value);
  }

  /** Whether a file stands in the model's folder. Only content that was checked ever does. */
  async has(file: HubFile, commit: string): Promise<boolean> {
    return (await sizeOf(join(this.folder(commit), file.path))) === file.bytes;
  }

  /** Makes a file appear in the model's folder, once its content is whole. */
  async place(file: HubFile, commit: string): Promise<void> {
    const path = join(this.folder(commit), file.path);
    await makeFolder(dirname(path));
    const blob = this.blob(file);
    try {
      await rm(path, { force: true });
      await symlink(relative(dirname(path), blob), path).catch(async () => {
        // File systems and users without links get a copy, which must not be seen half-written.
        await copyFile(blob, `${path}.part`);
        await rename(`${path}.part`, path);
      });
    } catch (cause) {
      throw diskError(cause, path);
    }
  }

  /** The commit that a revision was when it was last asked for. */
  async remembered(revision: string): Promise<string | undefined> {
    if (/^[0-9a-f]{40}$/u.test(revision)) return revision;
    const commit = await readFile(this.#ref(revision), 'utf8').catch(() => undefined);
    return commit?.trim();
  }

  async remember(revision: string, commit: string): Promise<void> {
    const path = this.#ref(revision);
    if (revision === commit || (await readFile(path, 'utf8').catch(() => '')) === commit) return;
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.part`, commit);
    await rename(`${path}.part`, path);
  }

  #ref(revision: string): string {
    return join(this.root, 'refs', revision);
  }
}

/** The folders that models are fetched into, by their servers. */
export const modelCaches = (): { readonly name: string; readonly path: string }[] => [
  { name: 'models of the Hugging Face hub', path: getHFHubCachePath() },
  { name: 'models of ModelScope', path: modelScopeHome() },
];

const modelScopeHome = (): string => process.env['MODELSCOPE_CACHE'] ?? join(homedir(), '.cache', 'modelscope', 'hub');

/** Whether a model's folder holds all that its config promises to hold; a download that was cut leaves no config. */
export const holdsModel = (folder: string): boolean =>
  ['config.json', 'adapter_config.json'].some((name) => existsSync(join(folder, name)));

/** Makes the folders of a cache. @throws UserError where that is not allowed */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((cause: unknown) => {
    const error = diskError(cause, path);
    if (error.exitCode === 3) throw error;
    throw new UserError({
      code: 'hub.read-only-cache',
      message: `The cache of models cannot be written (${(cause as NodeJS.ErrnoException).code ?? String(cause)}).`,
      where: path,
      fix: 'Choose another with HF_HOME (MODELSCOPE_CACHE), or put the model there beforehand.',
      cause,
    });
  });
}
