"""What ``--help`` shows at its end: commands that work as they are written."""

EXAMPLES = {
    "prepare-data": """
  python scripts/prepare_data.py --data-dir data/siim_isic_2020
  python scripts/prepare_data.py --data-dir data/siim_isic_2020 --set records.image_size_px=512
  python scripts/prepare_data.py --data-dir data/siim_isic_2020 --beam
  python scripts/prepare_data.py --data-dir /mnt/siim --run-dir /mnt/run \\
      --beam='--runner=FlinkRunner --flink_master=host:8081 --parallelism=64'""",
    "train-image": """
  python scripts/train_image.py --tpu
  python scripts/train_image.py --fold 0 --set image.epochs=3
  python scripts/train_image.py --run-dir runs/mine --resume""",
    "train-tabular": """
  python scripts/train_tabular.py --data-dir data/siim_isic_2020 --run-dir runs/mine
  python scripts/train_tabular.py --set tabular.resampling=smote --set tabular.patience=null""",
    "make-submission": """
  python scripts/make_submission.py --run-dir runs/mine
  python scripts/make_submission.py --run-dir runs/mine --set blend.models=[tabular]""",
    "blend-scores": """
  python scripts/blend_scores.py --config configs/siim_public_models.yaml
  python scripts/blend_scores.py --run-dir runs/mine --set ensemble.models=[image,forest]""",
    "run-pipeline": """
  python scripts/run_pipeline.py --config configs/demo.yaml --data-dir data/demo/competition
  python scripts/run_pipeline.py --data-dir data/siim_isic_2020 --run-dir runs/mine --resume""",
    "make-synthetic": """
  python scripts/make_synthetic.py --out data/demo --patients 200 --image-size-px 96
  python scripts/make_synthetic.py --dataset ham10000 --out data/made_up --images 400""",
    "predict": """
  python scripts/predict.py --run-dir runs/siim_isic_2020 --images photos/
  python scripts/predict.py --run-dir runs/mine --images photos/ --out photos.csv""",
    "serve": """
  python scripts/serve.py
  python scripts/serve.py --run-dir runs/siim_isic_2020 --port 8600""",
    "explore-data": """
  python scripts/explore_data.py --config configs/ham10000_mobilenet.yaml
  python scripts/explore_data.py --data-dir data/siim_isic_2020 --out pictures/""",
    "compare-runs": """
  python scripts/compare_runs.py runs/ham10000_lenet runs/ham10000_lenet_by_lesion""",
    "results-table": """
  python scripts/results_table.py runs/siim_isic_2020
  python scripts/results_table.py runs/ham10000_mobilenet runs/isic_2017 --update README.md""",
    "list-backbones": """
  python scripts/list_backbones.py
  python scripts/list_backbones.py resnet18 ResNet50 MobileNetV2""",
    "preflight": """
  python scripts/preflight.py --config configs/siim_isic_2020_seed.yaml --topology v5e-8
  python scripts/preflight.py --topology v3-8 --set image.batch_size=32 --json preflight.json
  python scripts/preflight.py --topology v5e-8 --weekly-hours 20 --largest-batch""",
    "smoke": """
  python scripts/smoke.py --tpu --config configs/siim_isic_2020_seed.yaml \\
      --beside configs/preflight/siim_isic_2020_seed_v5e-8.json
  python scripts/smoke.py --config configs/demo.yaml --steps 5""",
    "build-kernels": """
  python scripts/build_kernels.py --owner NAME
  python scripts/build_kernels.py --owner NAME --hardware gpu --set image.epochs=8
  python scripts/build_kernels.py --owner NAME --fold 0 --fold 1 --fold 2 --fold 3 --fold 4""",
    "push-kernels": """
  cd build/kernels && python ../../scripts/push_kernels.py image tabular blend
  python scripts/push_kernels.py build/kernels/tpu_smoke --out outputs""",
    "submit": """
  python scripts/submit.py --run-dir runs/siim_isic_2020 --message "first"
  python scripts/submit.py --file outputs/melanoma-blend/submission.csv \\
      --sample data/siim_isic_2020/sample_submission.csv""",
    "download-data": """
  python scripts/download_data.py
  python scripts/download_data.py --part tables
  python scripts/download_data.py --part all --data-dir /mnt/large/siim""",
    "benchmark": """
  python scripts/benchmark.py memory
  python scripts/benchmark.py kills
  python scripts/benchmark.py convert --json convert.json
  python scripts/benchmark.py tabular --data-dir data/siim_isic_2020
  python scripts/benchmark.py input --json input.json
  python scripts/benchmark.py train
  python scripts/benchmark.py predict
  python scripts/benchmark.py step --backbone InceptionResNetV2 --image-size-px 299 --batch-size 16
  python scripts/benchmark.py step --backbone EfficientNetB4 --image-size-px 512 --device gpu
  python scripts/benchmark.py serve --backbone InceptionResNetV2 --image-size-px 299""",
    "score-submission": """
  python scripts/score_submission.py --submission runs/demo/submission.csv \\
      --truth data/demo/truth.csv""",
}
