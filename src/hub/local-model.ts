import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseModelId, type ModelId } from '../config/model-id.js';
import { machineError, UserError } from '../errors.js';
import type { StageContext } from '../runs/events.js';
import { requireSpace } from '../runs/disk-space.js';
import { lockFolder, type FolderLock } from '../runs/lock.js';
import { fetchFile, isWhole, sizeOf, type Patience } from '../transfer/fetch-file.js';
import { holdsModel, makeFolder, ModelCache } from './cache.js';
import { hasChecksum } from './checksum.js';
import { wantedFiles, type HubFile, type Listing } from './source.js';

export type LocalModelOptions = Pick<Patience, 'attempts' | 'retryDelay'>;

/**
 * The folder of a model: the text itself where it is a folder, else the model of that name on the Hugging Face hub
 * (`ORG/NAME`) or on ModelScope (`modelscope:ORG/NAME`), fetched into the standard cache of that server. Files that are
 * there stay; a download that broke goes on where it stopped. Without a network, or with HF_HUB_OFFLINE set, what the
 * cache holds is used.
 *
 * @throws UserError (exit 2): no such folder or model, no access, wrong content. Exit 3: no network and no copy, no space
 */
export async function localModel(
  model: string,
  context: StageContext,
  options: LocalModelOptions = {},
): Promise<string> {
  const id = existsSync(model) ? undefined : parseModelId(model);
  if (id === undefined) return model;
  const cache = new ModelCache(id);
  const revision = id.revision ?? defaultRevision(id);
  const kept = await keptFolder(cache, revision);
  if (isOffline()) {
    if (kept !== undefined) return kept;
    throw notHere(model, cache, 'HF_HUB_OFFLINE is set');
  }

  const onEvent = context.onEvent.bind(context);
  const patience = { ...options, signal: context.signal };
  const listing = await list(id, patience).catch((error: unknown) => {
    if (!(error instanceof UserError) || error.exitCode !== 3) throw error;
    if (kept === undefined) throw notHere(model, cache, error.message, error);
    return error;
  });
  if (listing instanceof UserError) {
    const message = `${id.name} is taken from the cache as it is: the server does not answer.`;
    onEvent({ type: 'warning', code: 'hub.from-cache', message });
    return kept!;
  }
  await fill(cache, listing, wanted(id, listing), { name: id.name, onEvent, ...patience });
  // A cache that is only read is as good when nothing was missing.
  await cache.remember(revision, listing.commit).catch(() => undefined);
  return cache.folder(listing.commit);
}

/** The folder of a model if it is on this machine, by path or in the cache; nothing is fetched. */
export async function modelHere(model: string): Promise<string | undefined> {
  if (existsSync(model)) return model;
  const id = parseModelId(model);
  if (id === undefined) return undefined;
  return keptFolder(new ModelCache(id), id.revision ?? defaultRevision(id));
}

const defaultRevision = ({ source }: ModelId): string => (source === 'huggingface' ? 'main' : 'master');

async function keptFolder(cache: ModelCache, revision: string): Promise<string | undefined> {
  const commit = await cache.remembered(revision);
  if (commit === undefined) return undefined;
  return holdsModel(cache.folder(commit)) ? cache.folder(commit) : undefined;
}

const isOffline = (): boolean => /^(1|true|yes|on)$/iu.test(process.env['HF_HUB_OFFLINE'] ?? '');

async function list(id: ModelId, patience: Patience): Promise<Listing> {
  // The hub's library is large and most runs need none of it.
  return id.source === 'huggingface'
    ? (await import('./hugging-face.js')).listHuggingFace(id, patience)
    : (await import('./model-scope.js')).listModelScope(id, patience);
}

function wanted(id: ModelId, listing: Listing): HubFile[] {
  const files = wantedFiles(listing.files);
  if (files.some(({ path }) => path === 'config.json' || path === 'adapter_config.json')) return files;
  throw new UserError({
    code: 'hub.not-a-model',
    message: `${id.name} has no config.json: it is no model that can be read (${listing.files.length} files).`,
    where: id.name,
    fix: 'Many names have several forms; take the one in the Hugging Face layout, not GGUF or ONNX.',
  });
}

type Fill = Pick<StageContext, 'onEvent'> & Patience & { readonly name: string };

/** Fetches what is missing of a model's files, and checks it. */
async function fill(cache: ModelCache, listing: Listing, files: readonly HubFile[], options: Fill): Promise<void> {
  const { commit } = listing;
  const here = await Promise.all(files.map((file) => cache.has(file, commit)));
  const missing = files.filter((_, i) => !here[i]);
  if (missing.length === 0) return;

  await makeFolder(cache.root);
  const lock = await waitForLock(cache.root, options.signal);
  try {
    const total = missing.reduce((sum, { bytes }) => sum + bytes, 0);
    const arrived = await Promise.all(missing.map((file) => sizeOf(partOf(cache, file))));
    await requireSpace(cache.root, total - arrived.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0), {
      code: 'hub.no-space',
      what: `The download of ${options.name}`,
      fix: 'Free some space, or choose another disk with HF_HOME (MODELSCOPE_CACHE).',
    });
    let before = 0;
    for (const file of missing) {
      await fetchOne(cache, listing, file, { ...options, total, before });
      before += file.bytes;
    }
  } finally {
    lock.release();
  }
}

const partOf = (cache: ModelCache, file: HubFile): string => `${cache.blob(file)}.incomplete`;

async function fetchOne(
  cache: ModelCache,
  { commit, headers, refusal }: Listing,
  file: HubFile,
  { name, onEvent, total, before, signal, ...patience }: Fill & { readonly total: number; readonly before: number },
): Promise<void> {
  const path = cache.blob(file);
  await makeFolder(dirname(path));
  const remote = {
    name: file.path,
    url: file.url,
    bytes: file.bytes,
    headers,
    refusal,
    isRight: (local: string) => hasChecksum(local, file),
  };
  if (!(await isWhole(remote, path))) {
    await fetchFile(remote, path, {
      ...(patience.attempts !== undefined && { attempts: patience.attempts }),
      ...(patience.retryDelay !== undefined && { retryDelay: patience.retryDelay }),
      ...(signal && { signal }),
      part: partOf(cache, file),
      onProgress: ({ received }) => {
        onEvent({ type: 'progress', task: `download ${name}`, done: before + received, total, note: file.path });
      },
    });
  }
  await cache.place(file, commit);
}

/** Waits while another process fetches the same model. */
async function waitForLock(root: string, signal: AbortSignal | undefined): Promise<FolderLock> {
  for (;;) {
    try {
      return lockFolder(root);
    } catch (error) {
      if (!(error instanceof UserError) || error.code !== 'run.locked') throw error;
      await sleep(500, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}

const notHere = (model: string, { root }: ModelCache, why: string, cause?: unknown): UserError =>
  machineError({
    code: 'hub.not-here',
    message: `There is no folder ${model}, and the cache holds no model of that name; it cannot be fetched: ${why}`,
    where: root,
    fix: 'Check the path, or get the model while the network is there.',
    cause,
  });
