"""A machine learning backend for Label Studio (https://labelstud.io/guide/ml): video boxes for many objects.

`masklet label-studio` runs it. It needs starlette and uvicorn: ``pip install 'masklet[label-studio]'``.
"""
